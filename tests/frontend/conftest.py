"""A tokenizer folder of a few hundred bytes, so that tests of the front end need no model."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Byte-level, 256 tokens: id 0 to 255 are the alphabet of bytes in the library's order; 2 is used as eos."""
    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = tokenizers.Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    return str(folder)
