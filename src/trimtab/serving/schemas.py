"""What is sent to the server and what it sends, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .contract import ServedTask, Text


class _Closed(BaseModel):
    """A body that has no other fields: a slip in a name is told."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, given: Any) -> Any:
        # By the first: pydantic's own check would describe each of a hundred thousand.
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"there is no field {key!r:.60}; fields: {', '.join(cls.model_fields)}")
        return given


class PairOfTexts(_Closed):
    """Two texts, for a task that reads pairs."""

    text: str
    text_pair: str

    @property
    def texts(self) -> Text:
        """As the pool takes it."""
        return self.text, self.text_pair


_MOST = 4096  # of anything in a list: more is told before each of them is looked at


def _name(name: str) -> str:
    """A name of a task as it may be sent back."""
    if not name.isprintable():  # half characters too
        raise ValueError("no name of a task")
    return name


TaskName = Annotated[str, Field(max_length=1000), AfterValidator(_name)]
TextOrPair = Annotated[
    str | Annotated[list[str], Field(fail_fast=True, min_length=2, max_length=2)] | PairOfTexts,
    Field(description="A text; for a task that reads pairs two, as a list or as text and text_pair."),
]


class ItemOfTask(_Closed):
    """A text for one task."""

    text: TextOrPair
    task: TaskName


class PredictBody(_Closed):
    """Texts, each for all `tasks`; or items, each with a task of its own."""

    texts: Annotated[list[TextOrPair], Field(fail_fast=True)] | None = Field(
        None, min_length=1, max_length=_MOST, examples=[["Lovely."]]
    )
    tasks: Annotated[list[TaskName], Field(fail_fast=True)] | None = Field(
        None, min_length=1, max_length=_MOST, description="Names of tasks; without it all that are served."
    )
    items: Annotated[list[ItemOfTask], Field(fail_fast=True)] | None = Field(None, min_length=1, max_length=_MOST)
    truncate: bool = Field(
        True, description="Whether a text of more tokens than a task reads is cut; else it is refused."
    )
    probabilities: bool = Field(False, description="Whether to give the probability of each class.")


class Problem(BaseModel):
    """What is wrong."""

    code: str = Field(description="For programs.")
    message: str = Field(description="For people.")


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: Problem


class InferenceError(BaseModel):
    """As text-embeddings-inference says it."""

    error: str
    error_type: str


class _Predicted(BaseModel):
    """What all predictions have."""

    text: int = Field(description="The number of the text, or of the item, from 0.")
    task: str
    version: str = Field(description="Of the task's delta: the first 12 digits of its SHA-256.")
    tokens: int = Field(description="That were read of the text.")
    truncated: bool = Field(description="Whether the text had more.")


class SingleLabel(_Predicted):
    """One of the classes."""

    kind: Literal["single_label"]
    label: str | None = Field(description="Null where the task answers only what it is sure of, and this is not.")
    best_guess: str | None = Field(None, description="The most probable class, where there is no label.")
    score: float = Field(description="Of the label, or of the best guess, its probability.")
    probabilities: dict[str, float] | None = None


class MultiLabel(_Predicted):
    """Any number of the classes."""

    kind: Literal["multi_label"]
    labels: list[str]
    probabilities: dict[str, float] | None = None


class Regression(_Predicted):
    """A number."""

    kind: Literal["regression"]
    value: float


class Failed(BaseModel):
    """Why there is no prediction for this text and task; the others have theirs."""

    kind: Literal["error"]
    text: int
    task: str
    version: str | None = None
    error: Problem


class Usage(BaseModel):
    """What it took."""

    tokens: int = Field(description="That were read, of all predictions.")


class Predictions(BaseModel):
    """A prediction, or an error, for each text and task: all tasks of the first text, then those of the next."""

    predictions: list[Annotated[SingleLabel | MultiLabel | Regression | Failed, Field(discriminator="kind")]]
    usage: Usage


class LabelScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class InferenceParameters(BaseModel):
    """What huggingface_hub's InferenceClient sends beside the text."""

    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None
    top_k: int | None = Field(None, ge=1)


class InferenceBody(BaseModel):
    """The body that text-embeddings-inference and Hugging Face's inference API take for text classification."""

    inputs: (
        str
        | Annotated[list[str], Field(fail_fast=True, max_length=_MOST)]
        | Annotated[list[Annotated[list[str], Field(fail_fast=True)]], Field(fail_fast=True, max_length=_MOST)]
    ) = Field(description="A text; [text] or [first, second]; or a list of those.", examples=["Lovely."])
    parameters: InferenceParameters | None = None
    truncate: bool | None = True
    truncation_direction: Literal["right", "Right", "left", "Left"] = "right"
    raw_scores: bool = False


class TaskDescription(BaseModel):
    """A task that is served."""

    name: str
    version: str
    kind: Literal["single_label", "multi_label", "regression"]
    labels: list[str]
    method: str
    head: str
    pair: bool = Field(description="Whether it reads two texts.")
    text_columns: list[str] = Field(description="Of the data that it was trained on: one name, or two for pairs.")
    max_length: int = Field(description="Tokens that it reads of a text.")
    bytes: int = Field(description="That its values take in memory.")
    mixed: bool = Field(description="Whether its texts share passes with those of other tasks.")
    first_layer: int = Field(description="The first that it computes by itself.")
    resident: bool = Field(description="Whether its values are in memory now.")
    metric: str | None = Field(description="That its run was chosen by, where the run says so.")
    score: float | None = Field(description="Of its run on validation rows, by that metric.")

    @classmethod
    def of(cls, task: ServedTask) -> TaskDescription:
        """As the pool describes it."""
        plain = {key: value for key, value in vars(task).items() if key not in ("classes", "text_columns")}
        return cls(labels=[*task.classes], text_columns=[*task.text_columns], pair=task.pair, **plain)


class TaskList(BaseModel):
    """All tasks that are served."""

    tasks: list[TaskDescription]


class Health(BaseModel):
    """That all is well."""

    status: Literal["ok"] = "ok"


def as_texts(given: Any) -> Text:
    """A TextOrPair as the pool takes it."""
    if isinstance(given, PairOfTexts):
        return given.texts
    return given if isinstance(given, str) else (given[0], given[1])
