#!/usr/bin/env python3
"""Writes a Llama of 3 million random weights as GGUF, for tests and trials on a CPU; nothing is downloaded.

    random_llama.py OUT.gguf [--layers 4] [--hidden 128] [--vocab 8192] [--seed 1]

Needs the packages gguf and numpy. What it generates means nothing; what it costs to generate it is that of any model
of its size.
"""
import argparse
import pathlib

import gguf
import numpy as np

# Those of ASCII alone: what others make of random bytes is no text, and llama.cpp ends a stream that is none.
BYTES = 128
SPECIAL = [b"<unk>", b"<s>", b"</s>"]


def arguments():
    parser = argparse.ArgumentParser(description="write a Llama of random weights as GGUF")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128, help="a multiple of 32 heads' width")
    parser.add_argument("--vocab", type=int, default=8192, help="at least 512")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.hidden % 32 != 0 or given.hidden < 32:
        parser.error(f"--hidden is {given.hidden}; expected a multiple of 32")
    if given.vocab < 512:
        parser.error(f"--vocab is {given.vocab}; expected at least 512")
    return given


def describe(writer, given, heads, feed_forward):
    writer.add_name("random-llama")
    writer.add_block_count(given.layers)
    writer.add_context_length(given.context)
    writer.add_embedding_length(given.hidden)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(given.hidden // heads)
    writer.add_vocab_size(given.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def add_tokens(writer, vocab):
    """Three special tokens, the bytes of ASCII, and words of which each is a text of its own."""
    tokens = SPECIAL + [f"<0x{byte:02X}>".encode() for byte in range(BYTES)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * BYTES
    words = vocab - len(tokens)
    scores = [0.0] * len(tokens) + [-float(word) for word in range(words)]
    tokens += [f"\u2581w{word}".encode() for word in range(words)]
    kinds += [gguf.TokenType.NORMAL] * words
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def add_weights(writer, given, feed_forward):
    random = np.random.default_rng(given.seed)
    q8_0 = gguf.GGMLQuantizationType.Q8_0

    def matrix(name, rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32) * (0.5 / np.sqrt(columns))
        writer.add_tensor(name, gguf.quants.quantize(values, q8_0), raw_dtype=q8_0)
        return rows * columns

    def ones(name):
        writer.add_tensor(name, np.ones(given.hidden, dtype=np.float32))

    hidden = given.hidden
    count = matrix("token_embd.weight", given.vocab, hidden) + matrix("output.weight", given.vocab, hidden)
    ones("output_norm.weight")
    for layer in range(given.layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            count += matrix(f"{block}{part}.weight", hidden, hidden)
        count += matrix(block + "ffn_gate.weight", feed_forward, hidden)
        count += matrix(block + "ffn_up.weight", feed_forward, hidden)
        count += matrix(block + "ffn_down.weight", hidden, feed_forward)
    return count


def main():
    given = arguments()
    heads = given.hidden // 32
    # Q8_0 packs 32 weights; 8/3 of the hidden size, as in Llama, rounded up to them.
    feed_forward = -(-given.hidden * 8 // 3 // 32) * 32
    # Written beside its place and moved there whole: two tests may want it at once.
    part = given.out.with_name(f"{given.out.name}.{np.random.default_rng().integers(1 << 60):x}.part")
    writer = gguf.GGUFWriter(part, "llama")
    describe(writer, given, heads, feed_forward)
    add_tokens(writer, given.vocab)
    count = add_weights(writer, given, feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(given.out)
    print(f"{given.out}: {count / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
