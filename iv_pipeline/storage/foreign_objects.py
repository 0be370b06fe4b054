"""Objects of other libraries that pickles often hold, harmless but no matrix: what they are, how to convert them.

What a pickle names and is neither here nor needed for an array may do anything: `iv_pipeline.storage.safe_pickle`
warns of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIX = "convert it where it was made, and save it with np.save(file, array)"


@dataclass(frozen=True)
class ForeignObject:
    """A kind of object: the callables that make it, what people call it, and how to make an array of it."""

    callables: re.Pattern[str]
    what: str
    fix: str = _FIX


def _kind(callables: str, what: str, fix: str = _FIX) -> ForeignObject:
    return ForeignObject(re.compile(callables), what, fix)


_KINDS = (
    _kind(
        r"torch(\._utils|\._tensor|\.storage|\.serialization|\.nn\.parameter)?"
        r"\.(_rebuild_\w+|_load_from_bytes|\w*Storage|Tensor|\w+Tensor|Parameter|Size|device"
        r"|float(16|32|64)|bfloat16|u?int(8|16|32|64))",
        "a PyTorch tensor",
        "save its array: np.save(file, tensor.cpu().numpy())",
    ),
    _kind(r"torch\.nn\.modules(\.\w+)+\.[A-Z]\w*", "a PyTorch model", "save what it computes, not itself"),
    _kind(
        r"(tensorflow|keras)(\.\w+)*\.(convert_to_tensor|EagerTensor|\w*Variable|\w*Tensor|as_dtype)",
        "a TensorFlow tensor",
        "save its array: np.save(file, tensor.numpy())",
    ),
    _kind(r"(tensorflow|keras)(\.\w+)*\.([A-Z]\w*|deserialize\w*|_?from_config)", "a Keras object"),
    _kind(r"jax(lib)?(\.\w+)*\.(_reconstruct_array|\w*Array)", "a JAX array", "save np.asarray(array)"),
    _kind(
        r"cupy(\.\w+)*\.(array|ndarray|_?core)", "a CuPy array", "save its array: np.save(file, array.get())"
    ),
    _kind(
        r"scipy\.sparse(\.\w+)*\.\w+_(matrix|array)",
        "a sparse matrix of SciPy",
        "save its array: np.save(file, matrix.toarray())",
    ),
    _kind(r"PIL(\.\w+)*\.\w*Image\w*", "an image of Pillow", "deliver the vectors of the images"),
    _kind(r"sklearn(\.\w+)+\.[A-Z_]\w*", "an object of scikit-learn", "save what it computes, not itself"),
    _kind(r"pandas(\.\w+)*\.Categorical(Dtype|Index)?", "a pandas Categorical", "convert the column to text"),
    _kind(
        r"pandas(\.\w+)*\.(Series|SingleBlockManager)",
        "a pandas Series",
        "save its vectors: np.save(file, np.stack(series))",
    ),
    _kind(
        r"pandas(\.\w+)*\.(\w*(Index|Array|Dtype|Timestamp|Timedelta|Period|Interval|Offset|Day|NaTType)"
        r"|_new_\w*Index|_unpickle_\w+|_nat_unpickle|__pyx_unpickle_\w+|_?NAType|NA|FrozenList|freq_to_period\w*)",
        "an extension type of pandas",
        "convert the column to numbers or text",
    ),
    _kind(
        r"(polars|cudf|dask|xarray|modin|pyspark)(\.\w+)*\.\w*(Frame|Array|Series|Dataset)",
        "a table or an array",
    ),
    _kind(
        r"datetime\.(datetime|date|time|timedelta|timezone)|dateutil(\.\w+)*\.tz\w+",
        "dates",
        "leave them out",
    ),
    _kind(r"decimal\.Decimal|fractions\.Fraction", "exact numbers", "convert them to float"),
    _kind(r"uuid\.UUID", "UUIDs", "key its vectors by image path"),
    _kind(r"ml_dtypes(\.\w+)*\.\w*float\w+", "numbers of ml_dtypes", "convert them with .astype(np.float32)"),
)


def foreign_object(callable_name: str) -> ForeignObject | None:
    """The kind of object that a callable, as ``module.name``, makes; None if it is none of these."""
    return next((kind for kind in _KINDS if kind.callables.fullmatch(callable_name)), None)
