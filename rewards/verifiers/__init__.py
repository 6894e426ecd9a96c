"""The built-in verifiers, one file each; `rewards.registry` names and imports them."""
