"""Taking part in m1d from a program of one's own: metrics, progress, checkpoints, and an honest pause.

    import m1job

    run = m1job.attach()
    newest = run.resume()                      # the newest checkpoint's directory, or None
    if newest:
        model.load_state_dict(torch.load(newest / "model.pt"))
    for step in run.steps(1000):               # from the step after that checkpoint; ends when the machine is wanted
        loss = train_a_step()
        run.log(step, loss=loss)
        if run.wants_checkpoint:
            run.save(step, lambda directory: torch.save(model.state_dict(), directory / "model.pt"))

Started by `m1ctl run -- python train.py`, the program is a job. Started by hand all of this does nothing: `resume`
gives None, `steps` counts, and the script runs as ever. Needs nothing but Python 3.8, and may be copied.

It speaks what docs/protocol.md writes down, so a program in another language can do the same.
"""

from m1job.run import Run, attach

__all__ = ["Run", "attach"]
