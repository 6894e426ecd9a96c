"""Rewards over HTTP: `/v1/score`, `/v1/score_batch`, `/v1/verifiers`, `/healthz` and `/metrics`.

`rewards serve` starts it; `rewards.RemotePool` is its client. Needs the extra `serve`.
"""
