#!/usr/bin/env python3
"""Writes worldN.csv: rows of 16 models on A100s under a physics that is neither the law's nor the simulator's.

    python3 scripts/worlds.py DIRECTORY [WORLDS] [--mixed] [--offset SD]         # needs numpy
    energylens validate DIRECTORY/world0.csv --scheme workloads=3 --training-rows 25
    energylens validate DIRECTORY/world0.csv --scheme models --pool models --training-rows 50

Every world draws its own efficiencies, launch times, latencies, waiting power and chunk size. On top of a roofline come
1.2 % that each model has of its own at each tensor-parallel degree, and 3.4 % of noise. `--mixed` takes as many mixtures of
experts, hybrids and vision models as dense ones, and prefill-only rows; `--offset` gives each model a factor of its own
with that log standard deviation, for what kernels differ by beyond any card. Of each world it prints the Top-1 that a law
would have which knows the energies without noise: nothing can be better but by luck. For judging a change of the law
on more than one set of assumptions (docs/law.md); no figure of it says how the law does on hardware.
"""

import argparse
import collections
import csv
import pathlib

import numpy as np

# Layers, hidden size, parameters and active parameters in billions, KV bytes per token, experts, experts per token.
MODELS = {
    "meta-llama/Llama-2-7b-hf": (32, 4096, 6.738, 6.738, 524288, 0, 0),
    "meta-llama/Llama-2-13b-hf": (40, 5120, 13.016, 13.016, 819200, 0, 0),
    "meta-llama/Llama-2-70b-hf": (80, 8192, 68.977, 68.977, 327680, 0, 0),
    "meta-llama/Llama-3.1-8B": (32, 4096, 8.03, 8.03, 131072, 0, 0),
    "meta-llama/Llama-3.1-70B": (80, 8192, 70.55, 70.55, 327680, 0, 0),
    "codellama/CodeLlama-34b-hf": (48, 8192, 33.74, 33.74, 196608, 0, 0),
    "mistralai/Mistral-7B-v0.1": (32, 4096, 7.24, 7.24, 131072, 0, 0),
    "mistralai/Mixtral-8x7B-v0.1": (32, 4096, 46.7, 12.88, 131072, 8, 2),
    "Qwen/Qwen2.5-7B": (28, 3584, 7.62, 7.62, 57344, 0, 0),
    "Qwen/Qwen2.5-14B": (48, 5120, 14.77, 14.77, 196608, 0, 0),
    "Qwen/Qwen2.5-32B": (64, 5120, 32.76, 32.76, 262144, 0, 0),
    "Qwen/Qwen2.5-72B": (80, 8192, 72.7, 72.7, 327680, 0, 0),
    "Qwen/Qwen3-30B-A3B": (48, 2048, 30.5, 3.35, 98304, 128, 8),
    "google/gemma-7b": (28, 3072, 8.54, 8.54, 458752, 0, 0),
    "google/gemma-2-27b": (46, 4608, 27.2, 27.2, 376832, 0, 0),
    "tiiuae/falcon-7b": (32, 4544, 7.22, 7.22, 8192, 0, 0),
}
# The same of other architectures, and last the share of layers without attention.
MIXED = {
    "meta-llama/Llama-2-7b-hf": (32, 4096, 6.738, 6.738, 524288, 0, 0),
    "meta-llama/Llama-2-13b-hf": (40, 5120, 13.016, 13.016, 819200, 0, 0),
    "meta-llama/Llama-3.1-8B": (32, 4096, 8.03, 8.03, 131072, 0, 0),
    "meta-llama/Llama-3.1-70B": (80, 8192, 70.55, 70.55, 327680, 0, 0),
    "Qwen/Qwen2.5-14B": (48, 5120, 14.77, 14.77, 196608, 0, 0),
    "Qwen/Qwen2.5-32B": (64, 5120, 32.76, 32.76, 262144, 0, 0),
    "mistralai/Mixtral-8x7B-v0.1": (32, 4096, 46.7, 12.88, 131072, 8, 2),
    "mistralai/Mixtral-8x22B-v0.1": (56, 6144, 140.62, 39.1, 229376, 8, 2),
    "Qwen/Qwen3-30B-A3B": (48, 2048, 30.5, 3.35, 98304, 128, 8),
    "deepseek-ai/DeepSeek-V2-Lite": (27, 2048, 15.71, 2.66, 31104, 64, 6),
    "ai21labs/Jamba-v0.1": (32, 4096, 51.57, 12.0, 16384, 16, 2, 0.875),
    "ibm-ai-platform/Bamba-9B-v1": (32, 4096, 9.78, 9.78, 12288, 0, 0, 0.906),
    "nvidia/Nemotron-H-8B-Base-8K": (52, 4096, 8.1, 8.1, 16384, 0, 0, 0.923),
    "Qwen/Qwen2-VL-7B-Instruct": (28, 3584, 8.29, 8.29, 57344, 0, 0),
    "llava-hf/llava-1.5-13b-hf": (40, 5120, 13.35, 13.35, 819200, 0, 0),
    "llava-hf/llama3-llava-next-8b-hf": (32, 4096, 8.36, 8.36, 131072, 0, 0),
}
PEAK_FLOPS, BYTES_PER_S, LINK_BYTES_PER_S, LIMIT_W, MEMORY = 312e12, 2.039e12, 300e9, 400.0, 80e9
NOISE, QUIRK, WORKLOADS = 0.034, 0.012, 28
COLUMNS = ("model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,output_tokens,"
           "phase,energy_j,duration_s,kv_capacity_tokens").split(",")


def rounded_max(a, b, q):
    large, small = max(a, b), min(a, b)
    return 0.0 if large <= 0 else large * (1 + (small / large) ** q) ** (1 / q)


class World:
    def __init__(self, seed, models, offset, prefill_share):
        self.models, self.offset, self.prefill_share = models, offset, prefill_share
        # By workload and degree, the energies of its rows, with noise and without.
        self.energies = collections.defaultdict(lambda: collections.defaultdict(list))
        self.rng = g = np.random.default_rng(1000 + seed)
        log = lambda a, b: float(np.exp(g.uniform(np.log(a), np.log(b))))
        self.gemm, self.bandwidth, self.q = g.uniform(0.5, 0.8), g.uniform(0.65, 0.9), g.uniform(2.5, 6)
        self.half_tokens, self.half_columns = log(24, 128), log(60, 400)
        self.launch_s, self.latency_s, self.link = log(15e-6, 200e-6), log(8e-6, 40e-6), g.uniform(0.4, 0.8)
        self.host_s, self.host_sequence_s, self.waiting_w = log(0.5e-3, 8e-3), log(5e-6, 60e-6), g.uniform(0.12, 0.3) * 400
        self.j_flop, self.j_byte, self.j_link = log(0.8e-12, 1.6e-12), log(70e-12, 150e-12), log(20e-12, 150e-12)
        self.chunk, self.most = float(g.choice([2048, 8192, 16384])), float(g.choice([64, 256]))
        self.activation_bytes = log(8, 40)

    def step(self, card, t, tokens, attended, kv_tokens):
        """Seconds and watts of one forward pass on one of `t` GPUs."""
        L, h, P, A, kv, E, k, without_attention = card
        P, A, columns = P * 1e9, A * 1e9, h / t
        flops_s = PEAK_FLOPS * self.gemm * columns / (columns + self.half_columns)
        bytes_s = BYTES_PER_S * self.bandwidth * columns / (columns + 0.5 * self.half_columns)
        parts = [(P, P, tokens)]
        if E:
            routed = (P - A) / (1 - k / E)
            parts = [(P - routed, P - routed, tokens),
                     (routed * (1 - (1 - k / E) ** tokens), routed * k / E, max(tokens * k / E, 1e-9))]
        time = flops = moved = 0.0
        for read, computed, seen in parts:
            f, b = 2 * computed * tokens / t, 2 * read / t
            time += rounded_max(f / (flops_s * seen / (seen + self.half_tokens)), b / bytes_s, self.q)
            flops, moved = flops + f, moved + b
        f, b = 4 * h * L * (1 - without_attention) * attended / t, kv * kv_tokens / t
        time += rounded_max(f / (flops_s * 0.5), b / bytes_s, self.q)
        activations = tokens * L * h * self.activation_bytes * (0.4 + 1 / t)
        time += activations / bytes_s
        flops, moved, sent = flops + f, moved + b + activations, 0.0
        if t > 1:
            message = 2 * (t - 1) / t * 2 * h * tokens
            time += 2 * L * (self.latency_s * (1 + 0.5 * np.log2(t)) + message / (LINK_BYTES_PER_S * self.link))
            sent = 2 * L * message
        time = rounded_max(time, L * self.launch_s, self.q)
        dynamic_j = self.j_flop * flops + self.j_byte * moved + self.j_link * sent
        power = self.waiting_w + dynamic_j / time
        if power > LIMIT_W:
            time, power = dynamic_j / (LIMIT_W - self.waiting_w), LIMIT_W
        return time, power

    def batch(self, card, t, B, S, m):
        """Joules, seconds and cache tokens of a batch on `t` GPUs."""
        capacity = max((0.9 * MEMORY * t - 2e9 * card[2] - 1.5e9 * t) / card[4], S + m + 1)
        running = max(min(B, capacity / (S + m), self.most), 1.0)
        rounds, chunks = B / running, max(np.ceil(running * S / self.chunk), 1)
        tokens = running * S / chunks
        time, power = self.step(card, t, tokens, tokens * S / 2, running)
        seconds = chunks * time * rounds
        energy = seconds * power + (self.host_s * chunks + 3e-3) * self.waiting_w
        for grown in np.linspace(0.08, 0.92, 6):
            context = running * (S + m * grown)
            time, power = self.step(card, t, running, context, context)
            host = self.host_s + self.host_sequence_s * running
            steps = (m - 1) * rounds / 6
            seconds, energy = seconds + (time + host) * steps, energy + (time * power + host * self.waiting_w) * steps
        return energy * t, seconds, capacity

    def rows(self):
        g = self.rng
        for name, card in self.models.items():
            card = (*card, 0.0)[:8]
            own = float(np.exp(g.normal(0, self.offset))) if self.offset else 1.0
            quirk = {t: float(np.exp(g.normal(0, QUIRK))) for t in (1, 2, 4, 8)}
            degrees = [t for t in (1, 2, 4, 8) if 2e9 * card[2] + 2e9 * t < 0.88 * MEMORY * t]
            for _ in range(WORKLOADS):
                B = int(g.choice([1, 2, 4, 8, 16, 32, 64]))
                S = int(g.choice([64, 128, 256, 512, 1024, 2048]))
                m = int(g.choice([32, 64, 128, 256, 512]))
                prefill = bool(self.prefill_share) and g.uniform() < self.prefill_share
                m = 1 if prefill else m
                for t in degrees:
                    energy, seconds, capacity = self.batch(card, t, B, S, m)
                    exact = energy * own * quirk[t]
                    energy *= own * quirk[t] * np.exp(NOISE * g.normal())
                    self.energies[name, B, S, m][t].append((energy, exact))
                    yield name, "A100-SXM4-80GB", t, t, 1, B, S, m, "prefill" if prefill else "total", energy, seconds, capacity

    def ceiling(self):
        """Share of workloads whose row of least energy is the one of least energy without noise."""
        means = [np.array([np.mean(repeats, 0) for repeats in degrees.values()]) for degrees in self.energies.values()]
        return np.mean([noisy.argmin() == exact.argmin() for noisy, exact in (m.T for m in means if len(m) > 1)])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("directory", type=pathlib.Path)
    arguments.add_argument("worlds", type=int, nargs="?", default=6)
    arguments.add_argument("--mixed", action="store_true", help="mixtures of experts, hybrids, vision; prefill-only rows")
    arguments.add_argument("--offset", type=float, default=0.0, metavar="SD", help="log standard deviation between models")
    a = arguments.parse_args()
    for seed in range(a.worlds):
        world = World(seed, MIXED if a.mixed else MODELS, a.offset, 0.2 if a.mixed else 0.0)
        with open(a.directory / f"world{seed}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(world.rows())
        print(f"world{seed}: Top-1 of a law that knows the energies without noise: {100 * world.ceiling():.1f} %")


if __name__ == "__main__":
    main()
