"""The part of an OpenAI-compatible chat completion that is read."""

from pydantic import BaseModel, Field


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Likely(BaseModel):
    """A token that could stand at a place, and its log-probability."""

    token: str
    logprob: float


class Place(Likely):
    """The token that was generated at a place, and the likeliest there."""

    top_logprobs: list[Likely] = []


class Logprobs(BaseModel):
    content: list[Place] | None = None


class Choice(BaseModel):
    """An answer; what stands below `finish_reason` is there only where it was asked for."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(BaseModel):
    """What a server answers."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None
