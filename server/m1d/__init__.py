"""The daemon: takes jobs, starts one training process at a time, keeps what happened. Never imports torch."""
