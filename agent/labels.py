"""What a tag's readings are labelled with: domain, level and category, and the words that people write for them.

Two axes that say nothing of each other. Domain and level are those of the guide to grading industrial data
(工信厅信发〔2020〕6号): level 3 is the most sensitive, whose loss has the greatest effect. The category is that of the
measures for data security (工信部网安〔2022〕166号): general, important or core.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from agent import quantity
from agent.table import Table
from agent.wording import likely

Domain: TypeAlias = Literal["rd", "production", "operation", "management", "external"]
Category: TypeAlias = Literal["general", "important", "core"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)
CATEGORIES: tuple[Category, ...] = get_args(Category)
LEVELS = (1, 2, 3)

CHINESE = {
    "rd": "研发", "production": "生产", "operation": "运维", "management": "管理", "external": "外部",
    "general": "一般", "important": "重要", "core": "核心",
}  # fmt: skip
"""Each word as the Chinese documents have it."""
_OTHER = {chinese: word for word, chinese in CHINESE.items()} | {"maintenance": "operation", "r&d": "rd"}


def domain(text: object) -> str:
    """A domain from what people write: `production`, `生产`, `生产数据域`. Raises ValueError."""
    return _word(text, DOMAINS, "a domain")


def category(text: object) -> str:
    """A category from what people write: `important`, `重要`, `重要数据`. Raises ValueError."""
    return _word(text, CATEGORIES, "a category")


def level(text: object) -> int:
    """A level: 1, 2 or 3, also as 一级, 二级, 三级. Raises ValueError."""
    numbers = {word: number for number, word in enumerate(("一级", "二级", "三级"), 1)} | {str(at): at for at in LEVELS}
    found = numbers.get(str(text)) if isinstance(text, str) or type(text) is int else None
    if found is None:
        raise ValueError(f"{quantity.shown(text)} is not a level; write 1, 2 or 3 (the most sensitive)")
    return found


def _word(text: object, words: tuple[str, ...], what: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f'{quantity.shown(text)} is not {what}; write "{words[0]}", in quotes')  # noqa: TRY004
    known = text.strip().removesuffix("数据域").removesuffix("数据").removesuffix("域")
    found = _OTHER.get(known.lower(), known.lower())
    if found not in words:
        hint = likely(found, words).replace("? write", "?; write")
        raise ValueError(f"{quantity.shown(text)} is not {what}; {hint}")
    return found


def _either(words: tuple[str, ...]) -> dict[str, list[str]]:
    return {"enum": [*words, *(CHINESE[word] for word in words)]}


DomainWord: TypeAlias = Annotated[Domain, BeforeValidator(domain), WithJsonSchema(_either(DOMAINS))]
CategoryWord: TypeAlias = Annotated[Category, BeforeValidator(category), WithJsonSchema(_either(CATEGORIES))]
Level: TypeAlias = Annotated[int, BeforeValidator(level), WithJsonSchema({"enum": list(LEVELS)})]


class Labels(Table):
    """The labels of whatever has none of its own: of a tag by its device, of a device by the agent's [labels]."""

    domain: DomainWord | None = Field(
        None,
        description="Data domain; 研发, 生产, 运维, 管理 and 外部 are taken too.",
        examples=["production"],
    )
    level: Level | None = Field(None, description="1 to 3; 3 is the most sensitive.", examples=[1])
    category: CategoryWord | None = Field(None, description="General, important or core.", examples=["general"])


class LabelRules(Labels):
    """The labels of devices and tags that have none, and whether every tag must have some."""

    required: bool = Field(False, description="Whether a tag without domain and level is a problem.", examples=[True])
