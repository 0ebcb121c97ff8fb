"""Small random checkpoints of each architecture, and an endpoint that needs no registry, for tests of local models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from models.chunking_settings import DEFAULT
from models.endpoints.endpoint import Endpoint

WORDS = "the a cat dog sat on mat and ran far away from home big small red blue night day river stone tree 5 . , x"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), "##s", "##ing", "##ed"]
TEXTS = [
    "the cat sat on the mat",
    "a big dog ran far away from home and the cat",
    "",
    "red stone . blue tree , night",
    "cats sating river " * 30,
    "day",
    "x 5 . x",
]
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


def local_endpoint(task_type: str, settings: dict[str, Any], service: str = "elasticsearch") -> Endpoint:
    """An endpoint whose settings nobody checked, so that a test may leave out what a definition must have."""
    return Endpoint("test", task_type, service, settings, {}, DEFAULT)


def endpoint(task_type: str, model_id: str | Path, **settings: Any) -> Endpoint:
    threads = {"num_threads": 1, "num_allocations": 2}
    return local_endpoint(task_type, {"model_id": str(model_id), **threads, **settings})


def save_tokenizer(folder: Path, window: int = 64) -> None:
    tokenizer = Tokenizer(WordPiece({word: id for id, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(VOCABULARY[:5])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        name: f"[{name[:-6].upper()}]"
        for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": window, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def without_special_tokens(folder: Path) -> Path:
    """Let a checkpoint's tokenizer put nothing around a text."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    return folder


def save(model: Any, folder: Path, window: int = 64) -> Path:
    """Write a model of transformers with weights far from zero, so that mistakes show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    save_tokenizer(folder, window)
    return folder


def make_encoder(kind: str, folder: Path, **changes: Any) -> Path:
    """Write an encoder of a family: bert, xlm-roberta, distilbert, qwen3, eurobert, jina_embeddings_v3, modernbert."""
    import transformers as t

    torch.manual_seed(5)
    common = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, **SMALL, **changes}
    if kind == "bert":
        model: Any = t.BertModel(t.BertConfig(max_position_embeddings=80, **common))
    elif kind == "xlm-roberta":
        model = t.XLMRobertaModel(t.XLMRobertaConfig(max_position_embeddings=80, type_vocab_size=1, **common))
    elif kind == "distilbert":
        names = {"vocab_size": len(VOCABULARY), "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
        model = t.DistilBertModel(t.DistilBertConfig(max_position_embeddings=80, **names))
    elif kind == "qwen3":
        config = t.Qwen3Config(num_key_value_heads=2, head_dim=16, max_position_embeddings=80, **common)
        model = t.Qwen3Model(config)
    elif kind == "eurobert":
        model = t.EuroBertModel(t.EuroBertConfig(max_position_embeddings=80, **common))
    elif kind == "jina_embeddings_v3":
        model = t.JinaEmbeddingsV3Model(t.JinaEmbeddingsV3Config(max_position_embeddings=80, **common))
    else:
        special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        model = t.ModernBertModel(t.ModernBertConfig(max_position_embeddings=80, **special, **common))
    return save(model, folder)


def make_masked_lm(kind: str, folder: Path) -> Path:
    """Write a masked language model: bert, distilbert or xlm-roberta."""
    import transformers as t

    torch.manual_seed(7)
    if kind == "bert":
        model: Any = t.BertForMaskedLM(
            t.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=80, **SMALL)
        )
    elif kind == "distilbert":
        names = {"vocab_size": len(VOCABULARY), "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
        model = t.DistilBertForMaskedLM(t.DistilBertConfig(max_position_embeddings=80, **names))
    else:
        config = t.XLMRobertaConfig(vocab_size=len(VOCABULARY), max_position_embeddings=80, **SMALL)
        model = t.XLMRobertaForMaskedLM(config)
    return save(model, folder)


def add_pooling(folder: Path, mode: str, window: int = 64, prompts: dict[str, str] | None = None) -> None:
    """Make a checkpoint one of sentence-transformers: a pooling, a norm, a window and prompts."""
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flag = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[mode]
    flags = {
        f"pooling_mode_{name}": name == flag
        for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    }
    pooling = {"word_embedding_dimension": SMALL["hidden_size"], **flags}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": window}))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))


def make_cross_encoder(kind: str, folder: Path, labels: int = 1, window: int = 64) -> Path:
    """Write a cross-encoder of a family: bert, roberta, xlm-roberta, distilbert, modernbert or deberta-v2."""
    import transformers as t

    torch.manual_seed(7)
    common = {"vocab_size": len(VOCABULARY), "num_labels": labels}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    models = {
        "bert": lambda: t.BertForSequenceClassification(
            t.BertConfig(**common, **SMALL, max_position_embeddings=64)
        ),
        "roberta": lambda: t.RobertaForSequenceClassification(
            t.RobertaConfig(**common, **SMALL, max_position_embeddings=66, type_vocab_size=1)
        ),
        "xlm-roberta": lambda: t.XLMRobertaForSequenceClassification(
            t.XLMRobertaConfig(**common, **SMALL, max_position_embeddings=66, type_vocab_size=1)
        ),
        "distilbert": lambda: t.DistilBertForSequenceClassification(
            t.DistilBertConfig(
                **common, dim=64, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=64
            )
        ),
        "modernbert": lambda: t.ModernBertForSequenceClassification(
            t.ModernBertConfig(
                **common,
                **SMALL,
                max_position_embeddings=64,
                local_attention=8,
                global_attn_every_n_layers=2,
                **special,
            )
        ),
        # As DeBERTa-v3 is: positions only relative to one another, and kinds of texts, which most leave out.
        "deberta-v2": lambda: t.DebertaV2ForSequenceClassification(
            t.DebertaV2Config(
                **common,
                **SMALL,
                max_position_embeddings=64,
                relative_attention=True,
                position_buckets=16,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                type_vocab_size=2,
                pad_token_id=0,
            )
        ),
    }
    save(models[kind](), folder, window)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    if kind in ("bert", "deberta-v2"):  # the second text of a pair is of the second kind
        for piece in tokenizer["post_processor"]["pair"][3:]:
            next(iter(piece.values()))["type_id"] = 1
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def make_static(folder: Path, config: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """Write a static model in Model2Vec's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    vectors = random.normal(size=(len(VOCABULARY), 16)).astype(np.float32)
    save_file({"embeddings": vectors, **tensors}, folder / "model.safetensors")
    settings = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    (folder / "config.json").write_text(json.dumps({**settings, **(config or {})}))
    save_tokenizer(folder)
    return folder
