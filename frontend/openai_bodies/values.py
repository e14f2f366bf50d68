"""The kinds of value that a field may hold. Bounds stand here once: decoding checks them and the docs show them."""

from typing import Annotated

import msgspec

INT64_MAX = 2**63 - 1

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
OneOrMore = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
PositiveShare = Annotated[float, msgspec.Meta(gt=0, le=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Repetition = Annotated[float, msgspec.Meta(gt=0, le=100)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
MinusOneOrMore = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Seed = Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Salt = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
ToolName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Scalar = bool | int | float | str | None
