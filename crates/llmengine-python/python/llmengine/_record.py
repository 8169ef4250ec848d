"""What requests and responses are made of: classes whose fields are checked when they are made.

They behave as the published client's do, which come from pydantic, as far as programs see: `.dict()`, `.json()`,
`parse_obj`, `model_dump`, comparing, copying; numbers are taken from strings, what is unknown is left out.
"""

import copy
import datetime
import enum
import json
import typing
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

from .errors import ValidationError

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorated: decorated


R = TypeVar("R", bound="Record")
Check = Callable[[Any], Any]

_MISSING: Any = object()
_NUMBERS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class _Field:
    """A default with bounds."""

    def __init__(self, default: Any, factory: Optional[Callable[[], Any]], bounds: Dict[str, float]) -> None:
        self.default = default
        self.factory = factory
        self.bounds = bounds


def field(
    default: Any = _MISSING,
    *,
    default_factory: Optional[Callable[[], Any]] = None,
    ge: Optional[float] = None,
    gt: Optional[float] = None,
    le: Optional[float] = None,
    lt: Optional[float] = None,
) -> Any:
    """A field with bounds; required unless there is a default."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    return _Field(default, default_factory, {name: most for name, most in bounds.items() if most is not None})


class _Wrong(ValueError):
    """What is wrong with a value, and where in it."""

    def __init__(self, why: str, where: Tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.where = where


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Record:
    """A request, a response, or a part of one."""

    # Whether what is unknown is kept.
    _keeps_unknown: ClassVar[bool] = False
    _fields: ClassVar[Optional[Dict[str, "_Spec"]]] = None

    def __init__(self, **values: Any) -> None:
        specs = self._specs()
        wrong: List[_Wrong] = []
        given = set()
        for name, spec in specs.items():
            value = values.get(name, _MISSING)
            if value is _MISSING:
                value = spec.default()
                if value is _MISSING:
                    wrong.append(_Wrong("field required", (name,)))
                    continue
            else:
                given.add(name)
                try:
                    value = spec.check(value)
                except _Wrong as error:
                    wrong.append(_Wrong(error.why, (name, *error.where)))
                    continue
            self.__dict__[name] = value
        if self._keeps_unknown:
            unknown = {name: value for name, value in values.items() if name not in specs}
            self.__dict__.update(unknown)
            given.update(unknown)
        if wrong:
            lines = "\n".join(f"{'.'.join(error.where)}: {error.why}" for error in wrong)
            s = "" if len(wrong) == 1 else "s"
            raise ValidationError(f"{len(wrong)} mistake{s} in {type(self).__name__}\n{lines}")
        object.__setattr__(self, "_given", frozenset(given))

    @classmethod
    def parse_obj(cls: Type[R], obj: Any) -> R:
        """Made of a mapping."""
        if isinstance(obj, cls):
            return obj
        if not isinstance(obj, Mapping):
            raise ValidationError(f"{cls.__name__} is made of an object, not of {obj!r}")
        return cls(**obj)

    @classmethod
    def parse_raw(cls: Type[R], text: Any) -> R:
        """Made of JSON."""
        return cls.parse_obj(json.loads(text))

    model_validate = parse_obj
    model_validate_json = parse_raw

    def dict(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        by_alias: bool = False,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> Dict[str, Any]:
        """The fields, and those of the records in them."""
        shown = {}
        for name, value in self._items():
            is_left_out = (
                (include is not None and name not in include)
                or (exclude is not None and name in exclude)
                or (exclude_none and value is None)
                or (exclude_unset and name not in self._given)  # type: ignore[attr-defined]
            )
            if not is_left_out:
                shown[name] = _plain(value, exclude_none, exclude_unset)
        return shown

    def json(self, **options: Any) -> str:
        """The fields as JSON. Options are those of `dict`, and those of `json.dumps`."""
        of_dict = {"include", "exclude", "by_alias", "exclude_none", "exclude_unset"}
        fields = self.dict(**{name: value for name, value in options.items() if name in of_dict})
        dumping = {name: value for name, value in options.items() if name not in of_dict}
        return json.dumps(fields, default=_json_default, **dumping)

    def model_dump(self, **options: Any) -> Dict[str, Any]:
        """As `dict`."""
        return self.dict(**options)

    def model_dump_json(self, **options: Any) -> str:
        """As `json`, without blanks."""
        return self.json(separators=(",", ":"), **options)

    def copy(self: R, *, update: Optional[Mapping[str, Any]] = None, deep: bool = False) -> R:
        """A record with the same fields but for what is updated."""
        made = copy.deepcopy(self) if deep else copy.copy(self)
        made.__dict__.update(update or {})
        return made

    @classmethod
    def _specs(cls) -> Dict[str, "_Spec"]:
        specs = cls.__dict__.get("_fields")
        if specs is None:
            specs = {name: _Spec(cls, name, hint) for name, hint in _hints(cls).items()}
            cls._fields = specs
        return specs

    def _items(self) -> Any:
        return [(name, value) for name, value in self.__dict__.items() if name != "_given"]

    def __iter__(self) -> Any:
        return iter(self._items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self.dict() == other.dict()
        if isinstance(other, Mapping):
            return self.dict() == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in self._items())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._items())
        return f"{type(self).__name__}({fields})"


class _Spec:
    """A field: its default, and how a value for it is checked."""

    def __init__(self, cls: type, name: str, hint: Any) -> None:
        given = getattr(cls, name, _MISSING)
        self._factory: Optional[Callable[[], Any]] = None
        bounds: Dict[str, float] = {}
        if isinstance(given, _Field):
            self._factory, bounds, given = given.factory, given.bounds, given.default
        if given is _MISSING and self._factory is None and _is_optional(hint):
            given = None
        self._default = given
        check = checker(hint)
        self.check = _bounded(check, bounds) if bounds else check

    def default(self) -> Any:
        if self._factory is not None:
            return self._factory()
        # Lists and objects are each record's own.
        return copy.copy(self._default) if isinstance(self._default, (list, dict)) else self._default


def _hints(cls: type) -> Dict[str, Any]:
    hints: Dict[str, Any] = {}
    # The bases first, so that fields stand in the order in which they were written.
    for base in reversed(cls.__mro__):
        if issubclass(base, Record) and base is not Record:
            own = base.__dict__.get("__annotations__", {})
            hints.update({name: typing.get_type_hints(base)[name] for name in own})
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union and type(None) in typing.get_args(hint)


def checker(hint: Any) -> Check:
    """A function that returns a value as one of the type, or says why it isn't."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin is typing.Union:
        return _either([checker(each) for each in arguments])
    if origin is list:
        return _list_of(checker(arguments[0]))
    if origin is dict:
        return _dict_of(checker(arguments[0]), checker(arguments[1]))
    if origin is typing.Literal:
        return _one_of(arguments)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _record_of(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _member_of(hint)
    simple: Dict[Any, Check] = {
        str: _str,
        int: _int,
        float: _float,
        bool: _bool,
        type(None): _none,
        datetime.datetime: _datetime,
    }
    return simple[hint]


def _str(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise _Wrong("str type expected")


def _int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _Wrong("value is not a valid integer") from None


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _Wrong("value is not a valid float") from None


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else value
    if word in (1, "1", "true", "t", "yes", "y", "on"):
        return True
    if word in (0, "0", "false", "f", "no", "n", "off"):
        return False
    raise _Wrong("value could not be parsed to a boolean")


def _none(value: Any) -> None:
    if value is not None:
        raise _Wrong("value is not none")


def _datetime(value: Any) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    try:
        if isinstance(value, str):
            return datetime.datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        return datetime.datetime.fromtimestamp(float(value), datetime.timezone.utc)
    except (TypeError, ValueError, OverflowError):
        raise _Wrong("invalid datetime format") from None


def _either(checks: List[Check]) -> Check:
    def check(value: Any) -> Any:
        if value is None and _none in checks:
            return None
        first: Optional[_Wrong] = None
        for each in checks:
            try:
                return each(value)
            except _Wrong as wrong:
                first = first or wrong
        assert first is not None
        raise first

    return check


def _list_of(item: Check) -> Check:
    def check(value: Any) -> List[Any]:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise _Wrong("value is not a valid list")
        made = []
        for index, each in enumerate(value):
            try:
                made.append(item(each))
            except _Wrong as wrong:
                raise _Wrong(wrong.why, (str(index), *wrong.where)) from None
        return made

    return check


def _dict_of(key: Check, item: Check) -> Check:
    def check(value: Any) -> Dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise _Wrong("value is not a valid dict")
        made = {}
        for name, each in value.items():
            try:
                made[key(name)] = item(each)
            except _Wrong as wrong:
                raise _Wrong(wrong.why, (str(name), *wrong.where)) from None
        return made

    return check


def _one_of(words: Tuple[Any, ...]) -> Check:
    def check(value: Any) -> Any:
        if value not in words:
            raise _Wrong(f"unexpected value; permitted: {', '.join(map(repr, words))}")
        return value

    return check


def _record_of(cls: Type[Record]) -> Check:
    def check(value: Any) -> Record:
        try:
            # What is one of another kind of record is taken by its fields.
            return cls.parse_obj(dict(value) if isinstance(value, Record) and not isinstance(value, cls) else value)
        except ValidationError as error:
            raise _Wrong(str(error)) from None

    return check


def _member_of(cls: Type[enum.Enum]) -> Check:
    def check(value: Any) -> enum.Enum:
        try:
            return cls(value)
        except ValueError:
            permitted = ", ".join(repr(member.value) for member in cls)
            raise _Wrong(f"value is not a valid enumeration member; permitted: {permitted}") from None

    return check


def _bounded(check: Check, bounds: Dict[str, float]) -> Check:
    def bounded(value: Any) -> Any:
        value = check(value)
        if value is None:
            return None
        for name, bound in bounds.items():
            holds = {"ge": value >= bound, "gt": value > bound, "le": value <= bound, "lt": value < bound}[name]
            if not holds:
                raise _Wrong(f"ensure this value is {_NUMBERS[name]} {bound:g}")
        return value

    return bounded


def _plain(value: Any, exclude_none: bool, exclude_unset: bool) -> Any:
    if isinstance(value, Record):
        return value.dict(exclude_none=exclude_none, exclude_unset=exclude_unset)
    if isinstance(value, (list, tuple)):
        return [_plain(each, exclude_none, exclude_unset) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each, exclude_none, exclude_unset) for name, each in value.items()}
    return value


def _json_default(value: Any) -> Any:
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Record):
        return value.dict()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
