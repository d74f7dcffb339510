"""One absl flag per config field, and a config from the flags that were passed."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TypeVar

from absl import flags

from bert_tf.config.options import Option, options_of
from bert_tf.errors import shown

Config = TypeVar("Config")

# Flags of other systems' scripts that have no effect here: their commands still run.
_WITHOUT_EFFECT: dict[str, type] = {
    "dump_config": str,
    "enable_scoped_allocator": bool,
    "cpu_only": bool,
    "use_tpu": bool,
    "tpu_name": str,
    "tpu_zone": str,
    "gcp_project": str,
    "master": str,
    "num_tpu_cores": int,
    "iterations_per_loop": int,
    "manual_fp16": bool,
    "report_loss": bool,
    "eval_script": str,
    "use_trt": bool,
    "num_eval_iterations": int,
    "export_triton": bool,
    "triton_model_name": str,
    "triton_model_version": int,
    "triton_server_url": str,
    "triton_model_overwrite": bool,
    "triton_max_batch_size": int,
    "triton_dyn_batching_delay": float,
    "triton_engine_count": int,
    "save_summary_steps": int,
    "verbose_logging": bool,
    "is_dist_eval_enabled": bool,  # An evaluation is always over all workers.
}
_MAX_NAME = 100
# Names of the same settings in Habana's scripts, and in Intel's and MLPerf's.
_ALIASES = {
    "use_horovod": "horovod",
    "dataset_path": "data_dir",
    "deterministic_seed": "seed",
    "max_steps": "num_train_steps",
    "warmup_steps": "num_warmup_steps",
    "log_freq": "display_loss_steps",
    "keep_n_most_recent_checkpoints": "keep_checkpoint_max",
    "opt_lamb_beta_1": "beta_1",
    "opt_lamb_beta_2": "beta_2",
    "input_dir": "input_files_dir",
    "eval_dir": "eval_files_dir",
    "checkpoint_activations": "recompute",
    "stop_threshold": "target_mlm_accuracy",
    "eval_iter_samples": "samples_between_eval",
    "eval_iter_start_samples": "samples_start_eval",
    "max_samples_termination": "max_samples",
}


class FlagError(ValueError):
    """A command line that cannot be parsed."""


class HelpRequest(Exception):  # noqa: N818 - not an error
    """The command line asks for help; the text is the message."""


def _define(values: flags.FlagValues, name: str, kind: type, help_text: str) -> None:
    """Defines a flag with default None: the config alone holds the defaults."""
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }[kind]
    define(name, None, help_text, flag_values=values)


def _groups(config_class: type) -> dict[str, type]:
    """The config classes within a run's config, by field."""
    return {field.name: field.type for field in dataclasses.fields(config_class)}


def _options(config_class: type) -> dict[str, Option]:
    """The options of all groups, by flag."""
    groups = _groups(config_class).values()
    return {name: x for group in groups for name, x in options_of(group).items()}


def _aliases(config_class: type) -> dict[str, str]:
    """Alias -> flag, of the flags that a script has."""
    options = _options(config_class)
    return {name: target for name, target in _ALIASES.items() if target in options}


def make_flags(config_class: type) -> flags.FlagValues:
    """Defines every flag of a run.

    Args:
      config_class: A dataclass whose fields are config dataclasses.

    Returns:
      A separate set of flags, not absl's global one.
    """
    values = flags.FlagValues()
    options = _options(config_class)
    for option in options.values():
        _define(values, option.name, option.kind, option.description)
    for name, target in _aliases(config_class).items():
        _define(values, name, options[target].kind, f"The same as --{target}.")
    for name, kind in _WITHOUT_EFFECT.items():
        _define(values, name, kind, "Accepted, without effect.")
    return values


def help_text(config_class: type) -> str:
    """All flags with their defaults, by group."""
    lines = ["Flags (booleans: --name, --noname or --name=true):"]
    for group in _groups(config_class).values():
        lines += ["", (group.__doc__ or "").splitlines()[0]]
        for option in options_of(group).values():
            default = f" [{option.default_text}]" if option.default_text else ""
            text = f"{option.description} {option.limit_text}".rstrip()
            lines.append(f"  --{option.name}{default}\n      {text}")
    lines += ["", "Accepted for older scripts, without effect:"]
    lines.append("  " + " ".join(f"--{name}" for name in _WITHOUT_EFFECT))
    lines += ["", "The same as another flag:"]
    aliases = _aliases(config_class).items()
    lines += [f"  --{name}: --{target}" for name, target in aliases]
    return "\n".join(lines)


def parse(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """Makes a run's config from a command line.

    Args:
      config_class: A dataclass whose fields are config dataclasses.
      arguments: The command line, its program name first.

    Returns:
      An instance of `config_class`.

    Raises:
      HelpRequest: if the command line asks for help.
      FlagError: if a flag is unknown or its value is not of its type.
      ValueError: if a value, or a combination, is refused by the config.
    """
    if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(arguments[1:]):
        raise HelpRequest(help_text(config_class))
    for argument in arguments[1:]:
        name = argument.partition("=")[0]
        if len(name) > _MAX_NAME:  # Its likeness to known ones would take too long.
            raise FlagError(
                f"Unknown command line flag {shown(name)}. --help lists all flags."
            )
    values = make_flags(config_class)
    try:
        rest = values(list(arguments))
    except flags.Error as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise FlagError(f"{text}. --help lists all flags.") from error
    if len(rest) > 1:
        raise FlagError(
            f"Every argument must be a flag, --name=value. Received: {shown(rest[1])}. "
            "--help lists all flags."
        )
    return make_config(config_class, _passed(values, _aliases(config_class)))


def make_config(config_class: type[Config], passed: Mapping[str, object]) -> Config:
    """Makes a run's config from some of its settings, by the names of their flags.

    Raises:
      ValueError: if a value, or a combination, is refused by the config.
    """
    return config_class(
        **{
            name: group(
                **{
                    field.name: passed[field.name]
                    for field in dataclasses.fields(group)
                    if field.name in passed
                }
            )
            for name, group in _groups(config_class).items()
        }
    )


def _passed(values: flags.FlagValues, aliases: dict[str, str]) -> dict[str, object]:
    """The values of the flags on the command line, aliases resolved."""
    passed = {name: values[name].value for name in values if values[name].present}
    for name, target in aliases.items():
        if name in passed:
            value = passed.pop(name)
            if passed.setdefault(target, value) != value:
                raise FlagError(
                    f"`{name}` and `{target}` are the same flag. Received: "
                    f"{name}={value}, {target}={passed[target]}. Pass one of them."
                )
    return {n: tuple(x) if isinstance(x, list) else x for n, x in passed.items()}


def ignored_flags(arguments: Sequence[str]) -> list[str]:
    """Names of flags without effect that the command line sets to a true value."""
    values = flags.FlagValues()
    for name, kind in _WITHOUT_EFFECT.items():
        _define(values, name, kind, "")
    values(list(arguments), known_only=True)
    return [name for name in _WITHOUT_EFFECT if values[name].value]


def repeated_flags(config_class: type, arguments: Sequence[str]) -> list[str]:
    """The flags that a valid command line gives more than once, with their values."""
    values = make_flags(config_class)
    values(list(arguments))
    return [
        f"--{name}={shown(values[name].value)}"
        for name in values
        if values[name].present > 1
    ]


def warn_about_repeated_flags(config_class: type, arguments: Sequence[str]) -> None:
    """Prints one line with the flags whose last value replaces an earlier one."""
    if names := repeated_flags(config_class, arguments):
        print(
            f"warning: given more than once, the last value counts: {' '.join(names)}"
        )


def warn_about_ignored_flags(arguments: Sequence[str]) -> None:
    """Prints one line with the passed flags that have no effect, if any."""
    names = ignored_flags(arguments)
    if names:
        listed = " ".join(f"--{name}" for name in names)
        print(f"warning: these flags have no effect here: {listed}", file=sys.stderr)
