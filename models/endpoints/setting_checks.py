"""Checks of the settings in an endpoint's definition, each problem in Elasticsearch's words."""

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from models.endpoints.secrets import is_reference
from models.endpoints.services import Service, Setting
from models.errors import type_problem

_JAVA_TYPES = {
    **dict.fromkeys(("string", "secret", "url"), "String"),
    **dict.fromkeys(("secrets", "headers", "mapping"), "Map"),
    **dict.fromkeys(("strings", "pairs"), "List"),
    "integer": "Integer",
    "boolean": "Boolean",
}


_DAY = re.compile(r"\d{4}-\d\d-\d\d(?!\d)")
_LIMITS = ("requests_per_minute", "tokens_per_minute")
"""Elasticsearch knows the first; the second is an extension of ours."""


def check_settings(scope: str, body: Any, known: Mapping[str, Setting]) -> tuple[dict[str, Any], list[str]]:
    """Check one settings object; returns it with defaults filled in, and what is wrong with it."""
    raw = body.get(scope)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        return {}, [type_problem(scope, raw, "Map")]
    settings, problems = dict(raw), []
    for name, setting in known.items():
        value = raw.get(name)
        if value is None:
            settings.pop(name, None)
            if setting.required:
                problems.append(f"[{scope}] does not contain the required setting [{name}]")
            elif setting.default is not None:
                settings[name] = setting.default
            continue
        problem = _problem(scope, name, value, setting)
        if problem:
            problems.append(problem)
        elif setting.choices:
            settings[name] = _choice(value, setting.choices)
    problems += _check_rate_limit(scope, raw.get("rate_limit")) if "rate_limit" in known else []
    return settings, problems


def _choice(value: str, choices: tuple[str, ...]) -> str:
    """The spelling of `choices`: Elasticsearch reads enumerations in any case."""
    return next(choice for choice in choices if choice.lower() == value.lower())


def _problem(scope: str, name: str, value: Any, setting: Setting) -> str | None:
    """What is wrong with the value of one setting, in Elasticsearch's words."""
    if not _fits(value, setting.kind):
        shown = "…" if setting.kind in ("secret", "secrets", "headers") else value
        return type_problem(name, shown, _JAVA_TYPES[setting.kind])
    if value == "":
        return f"[{scope}] Invalid value empty string. [{name}] must be a non-empty string"
    if setting.kind == "secret" and not is_reference(value):
        return f"[{scope}] [{name}] must be a reference, env:NAME or file:PATH"
    if setting.kind == "integer" and value < setting.minimum:
        return f"[{scope}] Invalid value [{value}]. [{name}] must be a positive integer"
    if setting.choices and value.lower() not in (choice.lower() for choice in setting.choices):
        return (
            f"[{scope}] Invalid value [{value}] received. [{name}] must be one of"
            f" [{', '.join(sorted(setting.choices))}]"
        )
    if setting.kind == "url":
        return _url_problem(scope, name, value)
    return None


def _fits(value: Any, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "strings":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if kind == "pairs":
        return isinstance(value, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
            for pair in value
        )
    if kind in ("headers", "secrets"):
        return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())
    if kind == "mapping":
        return isinstance(value, dict | str)
    return isinstance(value, str)


def _url_problem(scope: str, name: str, value: str) -> str | None:
    """Definitions may hold a placeholder for a URL; one that is a URL must be safe to call."""
    scheme, separator, rest = value.partition("://")
    if (
        separator
        and scheme.lower() not in ("http", "https")
        and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme)
    ):
        return f"[{scope}] Invalid url [{value}] received for field [{name}]: only http and https are called"
    if separator and "@" in rest.split("/", 1)[0]:
        return (
            f"[{scope}] Invalid url received for field [{name}]: it holds credentials; put them into a"
            " secret setting"
        )
    return None


def _check_rate_limit(scope: str, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, dict):
        return [type_problem("rate_limit", value, "Map")]
    problems = [
        f"[{scope}.rate_limit] contains unknown settings [{', '.join(extra)}]"
        for extra in [sorted(value.keys() - set(_LIMITS))]
        if extra
    ]
    for name in _LIMITS:
        limit = value.get(name)
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit)
        ):
            problems.append(type_problem(name, limit, "Integer"))
        elif limit is not None and limit <= 0:
            problems.append(
                f"[{scope}.rate_limit] Invalid value [{limit}]. [{name}] must be a positive integer"
            )
    return problems


def check_metadata(value: Any) -> list[str]:
    """What is wrong with what a definition tells of its model: objects, and dates that are dates."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [type_problem("metadata", value, "Map")]
    problems = [
        type_problem(f"metadata.{part}", value[part], "Map")
        for part in ("heuristics", "display")
        if not isinstance(value.get(part) or {}, dict)
    ]
    heuristics = value.get("heuristics")
    for name in ("release_date", "end_of_life_date"):
        stated = heuristics.get(name) if isinstance(heuristics, dict) else None
        if stated is not None and not _is_day(stated):
            problems.append(f"[metadata.heuristics] Invalid value [{stated}]. [{name}] must be a date")
    return problems


def _is_day(stated: Any) -> bool:
    try:
        parse_day(stated)
    except ValueError:
        return False
    return True


def parse_day(stated: Any) -> date:
    """Read a date as clusters write it, with or without a time.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(stated, str) or not _DAY.match(stated):
        raise ValueError(f"[{stated}] is no date")
    return date.fromisoformat(stated[:10])


def check_one_of(settings: Mapping[str, Any], service: Service) -> list[str]:
    """Check that of each group of settings at least one is there."""
    return [
        f"[service_settings] does not contain one of the required settings [{', '.join(group)}]"
        for group in service.one_of
        if not any(settings.get(name) for name in group)
    ]


def check_deployment(name: str, settings: dict[str, Any], raw: Any) -> list[str]:
    """Threads and allocations of a model that runs here; fills in what a deployment would tell."""
    if name not in ("elasticsearch", "elser") or not isinstance(raw, dict | None):
        return []
    if name == "elser":
        settings.setdefault("model_id", ".elser_model_2")
    if settings.get("deployment_id") and "model_id" not in settings:
        settings["model_id"] = settings["deployment_id"]
    problems = []
    threads = settings.get("num_threads")
    if settings.get("deployment_id"):
        threads = settings.setdefault("num_threads", 1)
        settings.setdefault("num_allocations", 1)
    elif threads is None:
        problems.append("[service_settings] does not contain the required setting [num_threads]")
    if isinstance(threads, int) and threads > 0 and (threads > 32 or threads & (threads - 1)):
        problems.append("[threads_per_allocation] must be a power of 2 less than or equal to 32")
    adaptive = settings.get("adaptive_allocations")
    if settings.get("num_allocations") is None and adaptive is None:
        problems.append(
            "[service_settings] does not contain one of the required settings [num_allocations,"
            " adaptive_allocations]"
        )
    return problems + (_check_adaptive(adaptive) if adaptive is not None else [])


def _check_adaptive(adaptive: Any) -> list[str]:
    if not isinstance(adaptive, dict):
        return [type_problem("adaptive_allocations", adaptive, "Map")]
    low, high = adaptive.get("min_number_of_allocations"), adaptive.get("max_number_of_allocations")
    unknown = sorted(adaptive.keys() - {"enabled", "min_number_of_allocations", "max_number_of_allocations"})
    problems = [f"[adaptive_allocations] unknown field [{', '.join(unknown)}]"] if unknown else []
    if not isinstance(adaptive.get("enabled", False), bool):
        problems.append("[adaptive_allocations] [enabled] must be true or false")
    for value, name, least in ((low, "min", 0), (high, "max", 1)):
        setting = f"{name}_number_of_allocations"
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            problems.append(type_problem(setting, value, "Integer"))
        elif value < least:
            sign = "a non-negative integer" if least == 0 else "a positive integer"
            problems.append(f"[adaptive_allocations] Invalid value [{value}]. [{setting}] must be {sign}")
    if not problems and low is not None and high is not None and low > high:
        problems.append("[min_number_of_allocations] must not be larger than [max_number_of_allocations]")
    return problems
