"""The WordPiece tokenizer of BERT and related models, defined by its vocabulary alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.core.errors import UnsupportedError
from auditor.models.files.model_bytes import printable

_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")


def word_pieces(text: str, options: Mapping[str, Any], folder_name: str) -> tuple[Any, tuple[str, ...]]:
    """The tokenizer of a vocabulary of one piece a line, with the marks of BERT around each text, and notes.

    Whether it lowers case is what ``options`` say of ``do_lower_case``, else what the vocabulary shows: one of lowered
    texts has no capital in it. Raises ModelError where a piece stands twice, or a mark is missing.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = text.splitlines()
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    missing = [mark for mark in _SPECIAL if mark not in vocabulary]
    if len(vocabulary) != len(pieces) or missing:
        why = f"lacks {missing[0]}" if missing else "names a piece twice"
        raise UnsupportedError(
            f"The vocab.txt in {folder_name!r} {why}, so that it is none of WordPiece: save the fast tokenizer beside "
            f"the "
            "weights with AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
    stated = options.get("do_lower_case")
    lower = stated if isinstance(stated, bool) else not any(p != p.lower() for p in pieces if not p.startswith("["))
    accents, chinese = options.get("strip_accents"), options.get("tokenize_chinese_chars", True)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(chinese),
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=lower,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([mark for mark in (*_SPECIAL, "[MASK]") if mark in vocabulary])
    tokenizer.enable_padding(pad_id=vocabulary["[PAD]"], pad_token="[PAD]")
    said = "tokenizer_config.json" if isinstance(stated, bool) else "the capitals of its pieces"
    kept = "lowered" if lower else "kept"
    return tokenizer, (
        f"The tokenizer was built from vocab.txt as WordPiece; case is {kept} by what {printable(said)} says.",
    )
