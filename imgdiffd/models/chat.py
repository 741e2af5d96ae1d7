"""A question in a checkpoint's own chat template, under the profile's system prompt where it gives one."""

from typing import Any

from imgdiffd.errors import StageError
from imgdiffd.models.sources import one_line


def chat_text(
    templated: Any, content: str | list[dict[str, str]], system_prompt: str, role: str, **options: object
) -> str:
    """The prompt up to where the answer begins, by the chat template of `templated`, a tokenizer or a processor.

    `options` are the template's. Raises StageError, naming `role`, where the template does not take the system prompt.
    """
    asked: list[dict[str, object]] = [{"role": "user", "content": content}]
    if system_prompt:
        text = [{"type": "text", "text": system_prompt}]
        asked.insert(0, {"role": "system", "content": system_prompt if isinstance(content, str) else text})
    try:
        prompt: str = templated.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **options)
    except Exception as error:  # templates raise what they like
        if not system_prompt:
            raise
        raise _refused(role, one_line(error)) from error
    if system_prompt.strip() not in prompt:
        raise _refused(role, "it is left out")
    return prompt


def image_question(question: str) -> list[dict[str, str]]:
    """A user's content: an image, then `question`."""
    return [{"type": "image"}, {"type": "text", "text": question}]


def text_question(question: str) -> list[dict[str, str]]:
    """A user's content for a template that expects parts: `question` alone."""
    return [{"type": "text", "text": question}]


def adds_marks(tokenizer: Any, text: str) -> bool:
    """Whether `tokenizer` should add its start mark to a processor's prompt: where the template has not put it."""
    return tokenizer.bos_token is None or not text.startswith(tokenizer.bos_token)


def _refused(role: str, why: str) -> StageError:
    return StageError(
        f"the {role}'s chat template does not take the profile's system prompt: {why}",
        hint=f'set system_prompt to "" in the profile, or give [{role}] a chat_template in the bundle',
    )
