"""Flag, environment, config file and default, in that order, for every setting; and what is said to mistakes."""

import json
from pathlib import Path
from typing import get_args

import pytest

from frontend.settings import Settings, SettingsError
from frontend.settings.fields import Field, fields
from frontend.settings.parser import parse_settings
from frontend.settings.values import element_of

# A value that is not the default, as text, by the kind of setting that cannot be guessed.
SPECIAL = {"kv_cache_memory_bytes": "3GiB", "metrics_prefix": "vllm:", "override_generation_config": '{"top_k": 7}'}


def another_value(field: Field) -> tuple[str, object]:
    """Text for `field`, and what it should become."""
    if field.name in SPECIAL:
        text = SPECIAL[field.name]
        return text, {"3GiB": 3 * 1024**3, "vllm:": "vllm:", '{"top_k": 7}': {"top_k": 7}}[text]
    if field.is_flag:
        return ("false", False) if field.default == "on" else ("true", True)
    if field.metavar is not None and field.metavar.startswith("{"):
        choice = get_args(field.kind)[-1]
        return choice, choice
    if field.metavar == "TEXT":
        return "word", ("word",) if element_of(field.kind) else "word"
    if field.metavar == "BYTES":
        return "2MiB", 2 * 1024**2
    return ("0.5", 0.5) if field.metavar == "FRACTION" else ("8", 8)


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_each_setting_has_flag_variable_and_key(field: Field, tmp_path: Path) -> None:
    text, value = another_value(field)
    model = [] if field.name == "model" else ["m"]
    flag = [field.flag, text]
    if field.is_flag:
        flag = [field.flag if value else "--no-" + field.key]
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({field.key: text}))
    by_flag = parse_settings([*model, *flag], {})
    assert getattr(by_flag, field.name) == value != getattr(Settings(model="m"), field.name)
    assert parse_settings(model, {field.environment_variable: text}) == by_flag
    assert parse_settings([*model, "--config", str(file)], {}) == by_flag


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "model: from-file\nport: 1\nmax_num_seqs: 5\nenable-chunked-prefill: false\nserved-model-name: [a, b]\n"
        "override-generation-config: {temperature: 0.5}\nkv-cache-memory-bytes: 1.5GiB\nhost:\n"
    )
    return str(file)


def test_flag_over_environment_over_file_over_default(config: str) -> None:
    settings = parse_settings(["--port", "3"], {"HEADRACE_PORT": "2", "HEADRACE_MAX_N": "2", "HEADRACE_CONFIG": config})
    assert (settings.port, settings.max_n, settings.max_num_seqs, settings.block_size) == (3, 2, 5, 16)
    assert parse_settings(["--config", config], {"HEADRACE_PORT": "2"}).port == 2


def test_file_holds_lists_mappings_sizes_and_blanks(config: str) -> None:
    settings = parse_settings(["--config", config], {})
    assert settings.served_model_name == ("a", "b")
    assert settings.override_generation_config == {"temperature": 0.5}
    assert settings.kv_cache_memory_bytes == 3 * 1024**3 // 2
    assert settings.host is None


def test_a_flag_given_its_other_way_goes_over_the_file(config: str) -> None:
    assert not parse_settings(["--config", config], {}).enable_chunked_prefill
    assert parse_settings(["--config", config, "--enable-chunked-prefill"], {}).enable_chunked_prefill


def test_positional_model_goes_over_environment_and_file(config: str) -> None:
    assert parse_settings(["here", "--config", config], {"HEADRACE_MODEL": "there"}).model == "here"
    assert parse_settings(["--config", config], {}).model == "from-file"


def test_several_names(config: str) -> None:
    assert parse_settings(["m", "--served-model-name", "a", "b"], {}).served_model_name == ("a", "b")
    assert parse_settings(["m"], {"HEADRACE_SERVED_MODEL_NAME": '["a", "b"]'}).served_model_name == ("a", "b")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "MODEL is missing: name a Hugging Face id, a local folder, a .gguf file, or demo"),
        (["m", "--prot", "80"], "unknown flag --prot; the nearest known one is --port"),
        (["--max-num-seq=4", "m"], "unknown flag --max-num-seq; the nearest known one is --max-num-seqs"),
        (["m", "--no-port"], "unknown flag --no-port; the nearest known one is --port"),
        (["m", "n"], "unexpected argument n: only one MODEL is served"),
        (["m", "--model", "n"], "the model is named twice, as m and by --model; leave one of them out"),
        ([""], "MODEL: must be text of 1 to 4096 characters, not ''"),
        (["m", "--port", "70000"], "--port: must be a whole number from 0 to 65535, not '70000'"),
        (["m", "--port", "1.5"], "--port: must be a whole number from 0 to 65535, not '1.5'"),
        (["m", "--port"], "--port: expected one argument"),
        (["m", "--api-server-count", "0"], "--api-server-count: must be a whole number from 1 to 256, not '0'"),
        (["m", "--header-timeout", "nan"], "--header-timeout: must be a number above 0 and at most 86400, not 'nan'"),
        (["m", "--dtype", "int8"], "--dtype: must be one of auto, float32, bfloat16, float16, not 'int8'"),
        (["m", "--max-body-bytes", "3XB"], "--max-body-bytes: must be a size from 1KiB to 1048576GiB, not '3XB'"),
        (["m", "--max-body-bytes", "1"], "--max-body-bytes: must be a size from 1KiB to 1048576GiB, not '1'"),
        (
            ["m", "--override-generation-config", "[1]"],
            """--override-generation-config: must be a JSON object such as {"temperature": 0.6}, not '[1]'""",
        ),
    ],
)
def test_a_wrong_flag_is_named_with_its_limit(argv: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(argv, {})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HEADRACE_PROT": "1"}, "unknown environment variable HEADRACE_PROT; the nearest known one is HEADRACE_PORT"),
        ({"HEADRACE_PORT": "x"}, "HEADRACE_PORT: must be a whole number from 0 to 65535, not 'x'"),
        ({"HEADRACE_CONFIG": "/no/such.yaml"}, "Unable to open config file: /no/such.yaml. Error: [Errno 2] No such"),
        ({"HEADRACE_ENABLE_PREFIX_CACHING": "maybe"}, "Unexpected value for HEADRACE_ENABLE_PREFIX_CACHING: 'maybe'."),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(["m"], environment)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot: 1", "FILE: unknown key prot; the nearest known one is port"),
        ("no-enable-prefix-caching: true", "FILE: unknown key no-enable-prefix-caching; the nearest known one is"),
        ("config: other.yaml", "FILE: unknown key config; the nearest known one is"),
        ("port: 80x", "port in FILE: must be a whole number from 0 to 65535, not '80x'"),
        ("port: [1, 2]", "FILE: port takes one value, not a list"),
        ("port", "FILE must hold one line 'key: value' per setting"),
        ("port: [", "FILE is not YAML: while parsing a flow node"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        parse_settings(["m", "--config", str(file)], {})
    assert str(caught.value).startswith(message.replace("FILE", str(file)))


def test_an_empty_file_and_empty_variables_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("# nothing yet\n")
    environment = {"HEADRACE_HOST": "", "HEADRACE_UNKNOWN": "", "HOME": "/root"}
    assert parse_settings(["m", "--config", str(file)], environment) == Settings(model="m")


def test_service_links_of_kubernetes_are_no_settings() -> None:
    links = {
        "HEADRACE_PORT": "tcp://10.0.0.7:80",
        "HEADRACE_SERVICE_HOST": "10.0.0.7",
        "HEADRACE_SERVICE_PORT_HTTP": "80",
        "HEADRACE_PORT_80_TCP_ADDR": "10.0.0.7",
    }
    assert parse_settings(["m"], links) == Settings(model="m")


def test_help_lists_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(["--help"], {})
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields():
        assert field.flag + " " in shown.replace(",", " ")
        assert field.help in shown
        assert f"{field.group}:" in shown
    assert "(default: 16MiB)" in shown
