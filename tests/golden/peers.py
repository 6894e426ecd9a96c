"""Where published functions of other projects agree with the golden vectors, and where and why they differ.

`checked` is `run` where the function, taken out of its file, was run on the vectors, and `read` where its source was
read.
"""

from __future__ import annotations

VERL = "verl b178a3cd5 (2026-01-29)"
AREAL = "AReaL 4aef98d8d (2026-05-21)"
SKYRL = "SkyRL a9564572e (2026-08-21)"
SLIME = "slime 624b824a8 (2026-08-21)"
TRL = "TRL f2cd57710 (2026-07-24)"
Peer = dict[str, str]


def ran(project: str, function: str, note: str) -> Peer:
    return {"project": project, "function": function, "checked": "run", "note": note}


def read(project: str, function: str, note: str) -> Peer:
    return {"project": project, "function": function, "checked": "read", "note": note}


PEERS: dict[str, list[Peer]] = {
    "gspo": [
        ran(
            VERL,
            "compute_policy_loss_gspo",
            "Loss and gradient agree without weights. With token weights the loss agrees and the gradient differs: it "
            "is GSPO-token (gspo_token.json), so a token's own weight multiplies its gradient, where GSPO multiplies "
            "the sequence's surrogate by the mean weight.",
        ),
        ran(
            AREAL,
            "ppo_actor_loss_fn, importance_sampling_level sequence",
            "Agrees for sequences of one length. It averages over tokens, so long sequences count more; the paper and "
            "these vectors average over sequences (case sequences_of_different_length).",
        ),
        read(TRL, "importance_sampling_level sequence", "Agrees: mean over sequences, gradient of s itself."),
    ],
    "grpo": [
        ran(VERL, "compute_policy_loss_vanilla, seq-mean-token-mean", "Agrees (dual clip out of reach: c = 1e9)."),
        read(TRL, "loss_type grpo", "Agrees on one batch; micro-batches are averaged, whatever their sizes."),
    ],
    "dr_grpo": [
        ran(VERL, "agg_loss, seq-mean-token-sum-norm", "Agrees if loss_scale_factor is sequences times the constant."),
        read(
            TRL,
            "loss_type dr_grpo",
            "Agrees on one batch: the constant is max_completion_length. Micro-batches are averaged, of any size.",
        ),
    ],
    "dapo": [
        ran(VERL, "compute_policy_loss_vanilla, token-mean", "Agrees (dual clip out of reach: c = 1e9)."),
        ran(AREAL, "ppo_actor_loss_fn", "Agrees, its clamping rejection sampling as the capped weights."),
        ran(SLIME, "compute_policy_loss", "Agrees token by token."),
        read(SKYRL, "ppo_policy_loss, token_mean", "Agrees; log ratios are clamped to -20..20."),
    ],
    "gspo_token": [
        ran(VERL, "compute_policy_loss_gspo", "Agrees; log ratios are clamped to at most 10."),
        read(SKYRL, "gspo_policy_loss", "Agrees; log ratios are clamped to at most 10."),
    ],
    "sapo": [
        ran(VERL, "compute_policy_loss_sapo", "Agrees."),
        ran(
            AREAL,
            "sapo_loss_fn",
            "Agrees token by token. It averages over tokens, where the paper and these vectors average over each "
            "sequence first, and has no weights.",
        ),
        read(TRL, "loss_type sapo", "Agrees on one batch."),
        read(SKYRL, "sapo_policy_loss, sequence_mean", "Agrees; log ratios are clamped to -20..20."),
    ],
    "cispo": [
        ran(VERL, "compute_policy_loss_cispo", "Agrees; both bounds are always in force."),
        ran(SLIME, "compute_cispo_loss", "Agrees; an eps_clip of 1 or more opens the lower side."),
        read(TRL, "loss_type cispo", "Differs: epsilon_high is the bound itself, not its distance from 1."),
        read(SKYRL, "compute_policy_loss_cispo", "Agrees; anchor `rollout` is correction.proximal `behaviour` here."),
    ],
    "dual_clip": [
        ran(VERL, "compute_policy_loss_vanilla, clip_ratio_c", "Agrees at token level; its GSPO has none."),
        ran(SLIME, "compute_policy_loss, eps_clip_c", "Agrees."),
        ran(AREAL, "ppo_actor_loss_fn, c_clip", "Agrees; its bound c |A| is out of reach for A > 0."),
        read(TRL, "delta", "Agrees if delta > 1 + epsilon_high: it bounds the ratio of both signs before the minimum."),
    ],
    "kl_cov": [
        ran(
            VERL,
            "compute_policy_loss_kl_cov",
            "Agrees given the chosen tokens (cases paper, weighted). It has no clip, and chooses otherwise: see "
            "covariance_selection.json.",
        ),
        read(SKYRL, "compute_policy_loss_kl_cov", "As verl, without weights."),
    ],
    "clip_cov": [
        ran(VERL, "compute_policy_loss_clip_cov", "Agrees given the chosen tokens (case token_mean)."),
        read(SKYRL, "compute_policy_loss_clip_cov", "As verl, without weights."),
    ],
    "covariance_selection": [
        read(
            VERL,
            "compute_policy_loss_kl_cov, compute_policy_loss_clip_cov",
            "Differs on purpose: it takes means and choice inside a micro-batch, from current logprobs, so the update "
            "depends on how the batch is cut. KL-Cov may choose negative covariances; Clip-Cov leaves out tokens that "
            "the ratio already clips (none, at the proximal policy) and draws with the global generator.",
        ),
        read(SKYRL, "compute_policy_loss_kl_cov, compute_policy_loss_clip_cov", "As verl."),
    ],
    "reference_kl": [
        ran(
            VERL,
            "kl_penalty",
            "k1, k2 and k3 agree; k3 is clamped to -10..10. Its k1+ and k3+ would be `unbiased` here, and raise "
            "NotImplementedError in this version. The weights of the rollout correction do not multiply its penalty.",
        ),
        ran(SLIME, "compute_approx_kl", "k1, k2 and k3 agree."),
        read(TRL, "beta", "k3 agrees; weights do not multiply it."),
        read(SKYRL, "compute_approx_kl", "k1, k2 and k3 agree; k3 is clamped to -10..10."),
    ],
    "corrections": [
        ran(
            VERL,
            "compute_rollout_correction_weights",
            "tis_token and tis_sequence agree. Its masks (rollout_rs) come without the weight unless both are on.",
        ),
        ran(
            AREAL,
            "apply_rejection_sampling, metric ratio",
            "Agrees at token level, clamp and mask, and with geometric_rejection; there is no product weight.",
        ),
        ran(SLIME, "vanilla_tis_function, icepop_function", "Agree with tis_token, mis_token and icepop."),
        read(
            TRL,
            "vllm_importance_sampling_mode",
            "token_* and sequence_* agree with levels token and product. *_truncate raises those below clip_min.",
        ),
        read(SKYRL, "compute_tis_ratio", "tis_token and tis_sequence agree. Masks come without the weight."),
    ],
    "proximal": [
        read(
            AREAL,
            "compute_prox_logp_approximations, loglinear",
            "Agrees for whole versions: alpha = (v_proximal - v_behave) / (v_theta - v_behave). Versions may be "
            "fractions here, counted in updates of the step; there the current policy is one ahead of the proximal.",
        ),
    ],
    "group_advantages": [
        ran(
            VERL,
            "compute_grpo_outcome_advantage",
            "mean agrees. mean_std differs: it divides by the sample deviation (n - 1), here by the population's, as "
            "numpy does; the ratio is sqrt(n / (n - 1)) for all members of a group.",
        ),
        read(SKYRL, "compute_grpo_outcome_advantage", "As verl."),
        read(TRL, "scale_rewards group", "As verl, with epsilon 1e-4."),
    ],
    "rloo": [
        ran(
            VERL,
            "compute_rloo_outcome_advantage",
            "Agrees; a group of one keeps its raw reward, and gets 0 here.",
        ),
        read(SKYRL, "compute_rloo_outcome_advantage", "Agrees, a group of one included."),
    ],
    "overlong": [
        read(
            VERL,
            "DAPO reward manager, overlong_buffer",
            "Agrees up to max_tokens; it goes on falling beyond, which sampled completions never reach.",
        ),
        read(TRL, "get_soft_overlong_punishment", "Agrees with penalty 1."),
    ],
}
