"""The only module that knows which Keras backend runs: TensorFlow, JAX or PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import IO, Any

import numpy as np

from ecgadv.errors import BackendError

BACKENDS = ("tensorflow", "jax", "torch")
COARSE = ("float16", "bfloat16")
"""Arithmetic that no verdict is made in."""

Loss = Callable[..., tuple[Any, Any]]

OWN_COUNTS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")


def configure(name: str = "tensorflow") -> None:
    """Choose the backend; must come before anything imports Keras.

    Raises:
        BackendError: unknown, not installed, or Keras already runs on another one.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend={name}: unknown; there are {', '.join(BACKENDS)}")
    if "keras" in sys.modules:
        if running() != name:
            raise BackendError(
                f"backend={name}: Keras already runs on {running()} in this process; set "
                f"KERAS_BACKEND={name} before starting Python"
            )
        return
    if importlib.util.find_spec(name) is None:
        extra = "ecgadv" if name == "tensorflow" else f'"ecgadv[{name}]"'
        raise BackendError(f"backend={name}: package {name} is not installed (pip install {extra})")
    os.environ["KERAS_BACKEND"] = name
    count = threads()
    # Every library that counts cores for itself is told before it is imported.
    for variable in OWN_COUNTS if count is not None else ():
        os.environ.setdefault(variable, str(count))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if name == "tensorflow":
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        _start_tensorflow()


def threads() -> int | None:
    """Threads that this process may compute with; ``None`` for all cores that it sees.

    ``ECGADV_THREADS`` says it, or else what SLURM gave the job, or ``OMP_NUM_THREADS``, which
    joblib and Ray set in their workers. What is no number in the latter two is left out.

    Raises:
        BackendError: ``ECGADV_THREADS`` is no whole number.
    """
    for name in ("ECGADV_THREADS", "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdecimal() and int(text) >= 1:
            return int(text)
        if text and name == "ECGADV_THREADS":
            raise BackendError(f"{name}={text}: must be a whole number, at least 1")
    return None


def _start_tensorflow() -> None:
    """Import TensorFlow and let it compute once, as it prints notices on both."""
    with _native_silence():
        import tensorflow as tf

        if (count := threads()) is not None:
            # Refused once TensorFlow has computed; then the first choice stays.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(count)
                tf.config.threading.set_inter_op_parallelism_threads(count)
        tf.linalg.matmul(tf.ones((1, 1)), tf.ones((1, 1)))


def _not_of_retracing(record: logging.LogRecord) -> bool:
    """A batch that shrinks as its cases finish is traced again for each size, on purpose."""
    return "retracing" not in str(record.msg)


@contextlib.contextmanager
def _native_silence() -> Iterator[None]:
    """Keep start-up notices of native code off standard error; show them if the start-up fails.

    TensorFlow prints several lines that no log level reaches, and an error must be one clear line.
    """
    try:
        if sys.stderr is None:
            # Descriptor 2 is closed, or some other file's.
            raise OSError
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        notices: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        notices = open(os.devnull, "w+b")  # noqa: SIM115
    with notices:
        sys.stderr.flush()
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            notices.seek(0)
            os.write(2, notices.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def running() -> str:
    """Name of the backend that Keras runs on (imports Keras).

    Raises:
        BackendError: Keras cannot be imported as this process is set up.
    """
    if "keras" not in sys.modules:
        _import_keras()
    import keras

    return str(keras.backend.backend())


def _import_keras() -> None:
    """Import Keras, and TensorFlow quietly; what its settings spoil is one line."""
    with_tensorflow = importlib.util.find_spec("tensorflow") is not None
    try:
        with _native_silence() if with_tensorflow else contextlib.nullcontext():
            import keras
    except Exception as error:
        home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
        chosen = os.environ.get("KERAS_BACKEND", "not set")
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BackendError(
            f"Keras cannot be imported ({text}): look at KERAS_BACKEND ({chosen}; one of "
            f"{', '.join(BACKENDS)}) and {os.path.join(home, 'keras.json')}"
        ) from error
    if with_tensorflow and keras.backend.backend() == "tensorflow":
        _start_tensorflow()


def value_and_grad(loss: Loss) -> Callable[..., tuple[tuple[Any, Any], Any]]:
    """Differentiate per-case losses with respect to the first argument.

    Args:
        loss: f(x, *args) -> ((B,) losses, aux); case b's loss depends on row b of x only.

    Returns:
        g(x, *args) -> (((B,) losses, aux), gradient of x's shape). Rows are independent, so the
        gradient of the sum holds every case's own gradient.
    """
    import keras

    name = running()
    if name == "tensorflow":
        import tensorflow as tf

        def tensorflow_grad(x: Any, *args: Any) -> tuple[tuple[Any, Any], Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                value, aux = loss(x, *args)
                total = tf.reduce_sum(value)
            return (value, aux), tape.gradient(total, x, unconnected_gradients="zero")

        return tensorflow_grad
    if name == "jax":
        import jax

        def summed(x: Any, *args: Any) -> tuple[Any, tuple[Any, Any]]:
            value, aux = loss(x, *args)
            return keras.ops.sum(value), (value, aux)

        differentiate = jax.value_and_grad(summed, has_aux=True)

        def jax_grad(x: Any, *args: Any) -> tuple[tuple[Any, Any], Any]:
            (_, (value, aux)), grad = differentiate(x, *args)
            return (value, aux), grad

        return jax_grad
    import torch

    def torch_grad(x: Any, *args: Any) -> tuple[tuple[Any, Any], Any]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value, aux = loss(leaf, *args)
            grad = None
            if value.requires_grad:
                (grad,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        return detach((value, aux)), torch.zeros_like(leaf) if grad is None else grad

    return torch_grad


def detach(tree: Any) -> Any:
    """Cut PyTorch's graph off every tensor of a nested tuple; other backends have none."""
    return map_tensors(lambda leaf: leaf.detach() if hasattr(leaf, "detach") else leaf, tree)


@contextlib.contextmanager
def keras_defaults(policy: str = "float32", layout: bool = False) -> Iterator[None]:
    """Keras' defaults as this project means them, whatever ``keras.json`` or the session says.

    Args:
        policy: dtype policy of layers that are made while it is open.
        layout: also the layout of layers, channels last.
    """
    from keras import config

    def choose(floatx: str, dtypes: Any, order: str) -> None:
        config.set_floatx(floatx)
        config.set_dtype_policy(dtypes)
        config.set_image_data_format(order)

    kept = config.floatx(), config.dtype_policy(), config.image_data_format()
    choose("float32", policy, "channels_last" if layout else kept[2])
    try:
        yield
    finally:
        choose(*kept)


@contextlib.contextmanager
def _torch_float32() -> Iterator[None]:
    """PyTorch without the caller's autocast and without products rounded to fewer bits."""
    import torch

    kept = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast("cuda" if device_kind() == "gpu" else "cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(kept)


def compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trace and compile a pure function of tensors (and nested tuples of them), once a shape.

    It is computed in float32 unless it says otherwise itself.
    """
    name = running()

    def plain(*args: Any) -> Any:
        with keras_defaults():
            return function(*args)

    if name == "tensorflow":
        import tensorflow as tf

        logging.getLogger("tensorflow").addFilter(_not_of_retracing)
        return tf.function(plain, autograph=False)
    if name == "jax":
        import jax

        return jax.jit(plain)
    import torch

    def without_graph(*args: Any) -> Any:
        with torch.no_grad(), _torch_float32():
            return plain(*args)

    return without_graph


def coarse_arithmetic(compiled: Callable[..., Any], x: Any) -> tuple[str, ...]:
    """Which of :data:`COARSE` a function computes in, layers and casts of its own included.

    Args:
        compiled: what :func:`compile` returned.
        x: its one argument, a tensor.
    """
    look = {"tensorflow": _tensorflow_kinds, "jax": _jax_kinds, "torch": _torch_kinds}[running()]
    kinds = look(compiled, x)
    return tuple(kind for kind in COARSE if kind in kinds)


def _tensorflow_kinds(compiled: Any, x: Any) -> set[str]:
    import tensorflow as tf

    graph = compiled.get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph.as_graph_def()
    functions = attrgetter("library.function")(graph)
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    kinds = set()
    for node in nodes:
        if node.op == "Cast":
            kinds.add(tf.as_dtype(node.attr["DstT"].type).name)
        # Weights may be kept in fewer bits than they are computed with.
        elif node.op not in ("ReadVariableOp", "Const", "Placeholder", "Identity"):
            kinds |= {tf.as_dtype(a.type).name for a in node.attr.values() if a.type}
    return kinds


def _jax_kinds(compiled: Callable[..., Any], x: Any) -> set[str]:
    import jax

    return _traced_kinds(jax.make_jaxpr(compiled)(x).jaxpr)


def _traced_kinds(jaxpr: Any) -> set[str]:
    kinds = {
        str(v.aval.dtype) for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "dtype")
    }
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    kinds |= _traced_kinds(inner)
    return kinds


def _torch_kinds(compiled: Callable[..., Any], x: Any) -> set[str]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    kinds: set[str] = set()

    class Watch(TorchDispatchMode):
        """Notes the type of whatever is computed, also by TorchScript and exported programs."""

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = function(*args, **(kwargs or {}))
            for part in out if isinstance(out, tuple | list) else (out,):
                if isinstance(part, torch.Tensor):
                    kinds.add(str(part.dtype).removeprefix("torch."))
            return out

    with Watch():
        compiled(x)
    return kinds


def tensor(value: Any, dtype: str | None = None) -> Any:
    """A backend tensor on the default device."""
    import keras

    return keras.ops.convert_to_tensor(np.asarray(value), dtype=dtype)


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy array of a backend tensor (NumPy arrays pass through)."""
    if isinstance(value, np.ndarray):
        return value
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value))


def map_tensors(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to every leaf of nested (named) tuples; ``None`` stays."""
    if tree is None:
        return None
    if isinstance(tree, tuple):
        parts = [map_tensors(function, item) for item in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree)


def device_kind() -> str:
    """``gpu`` where the running backend sees one, else ``cpu``."""
    name = running()
    if name == "tensorflow":
        import tensorflow as tf

        return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    if name == "jax":
        import jax

        return "cpu" if jax.default_backend() == "cpu" else "gpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Versions of Keras and of the running backend's package."""
    import keras

    module = sys.modules.get(running())
    return {"keras": str(keras.__version__), running(): str(getattr(module, "__version__", ""))}
