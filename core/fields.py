"""What the fields of all specs are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

# NUL cannot be stored by many tools, and no tokenizer knows it.
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]*$")]
Words = Annotated[Text, StringConstraints(min_length=1, max_length=100)]


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
