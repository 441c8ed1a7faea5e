"""The training process's command line. `describe` of our own and `prepare` import no torch, `plan` only to
measure.

python -m m1train describe
python -m m1train describe --file FILE [--class NAME] [--settings FILE] | --installed NAME
python -m m1train prepare --data-root DIR --source NAME_OR_PATH [--name NAME] [--needs JSON]
python -m m1train run JOBDIR [--attempt N]
python -m m1train use --directory JOBDIR --step N --use NAME [--options FILE] [--data-root DIR] [--input PATH ...]
python -m m1train plan --recipe NAME [--settings FILE] [--profile FILE] [--samples N [--tested N]]
python -m m1train cifar --data digits --epochs 1 [--set lr=0.01 ...] [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from m1.errors import ExitCode, M1Error, Reason

from m1train.catalogue import DECLARATIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser("python -m m1train", description="The training process of m1d.")
    commands = parser.add_subparsers(dest="command", required=True)
    describing = commands.add_parser("describe", help="print every recipe and its settings as JSON")
    one = describing.add_mutually_exclusive_group()
    one.add_argument("--file", help="check the recipe in a user's file, and print that")
    one.add_argument("--installed", help="print the recipe that a package offers under this name")
    describing.add_argument("--class", dest="class_name", default="", help="which recipe of the file")
    describing.add_argument("--data", default="", help="what a recipe that reads its data itself is checked with")
    describing.add_argument("--settings", default="", help="a JSON file of the settings to check it with")
    prepare = commands.add_parser("prepare", help="read a dataset into the cache; prints JSON lines")
    prepare.add_argument("--data-root", required=True)
    prepare.add_argument("--source", required=True, help="a dataset's name or an absolute path")
    prepare.add_argument("--name", default="", help="import it under this name")
    prepare.add_argument("--needs", default="", help="what it is read for, as JSON; left out: as 0.1.0 read all")
    run = commands.add_parser("run", help="run a job's directory (what the daemon starts)")
    run.add_argument("directory")
    run.add_argument("--attempt", type=int, help="the number of this attempt; left out: the next one")
    use = commands.add_parser("use", help="ask what a job has trained; prints JSON lines")
    use.add_argument("--directory", required=True)
    use.add_argument("--step", required=True, type=int, help="of the checkpoint that answers")
    use.add_argument("--use", required=True, help="as the recipe calls it: predict, sample")
    use.add_argument("--options", default="", help="a JSON file of the use's options")
    use.add_argument("--data-root", default="", help="the cache of datasets, where the home was moved")
    use.add_argument("--input", action="append", default=[], help="a file")
    plan = commands.add_parser("plan", help="choose settings by this machine's speed; prints one line of JSON")
    plan.add_argument("--recipe", required=True)
    plan.add_argument("--settings", default="", help="a JSON file of the job's settings")
    plan.add_argument("--profile", default="", help="a JSON file of the job's profile")
    plan.add_argument("--samples", type=int, help="how many its data have to train on; left out: not known")
    plan.add_argument("--tested", type=int, help="how many its data have to test on; left out: no test split")
    plan.add_argument("--beside", default="", help="the job that holds the machine meanwhile")
    plan.add_argument(
        "--choose", default="now", choices=("now", "later", "never"), help="later, never: only refuse what is wrong"
    )
    for declaration in DECLARATIONS.values():
        if declaration.measures:  # its findings are the daemon's to keep
            continue
        recipe = commands.add_parser(declaration.name, help=f"train without a daemon: {declaration.summary}")
        recipe.add_argument("--data", default=declaration.default_data, help="a dataset's name or a path")
        recipe.add_argument("--epochs", help="the same as --set epochs=N")
        recipe.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
        recipe.add_argument("--out", help="the job's directory; the same one again goes on from its newest checkpoint")
        recipe.add_argument("--threads", type=int, help="threads to compute with; left out: torch's own choice")
        recipe.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    chosen = parser.parse_args(arguments)
    try:
        # Each command imports what it needs: describing takes no numpy, preparing no torch.
        if chosen.command == "describe":
            from m1train.commands.describe import describe, describe_file, describe_installed

            if chosen.file:
                describe_file(chosen.file, chosen.class_name, chosen.settings, chosen.data)
            if chosen.installed:
                describe_installed(chosen.installed)
            return describe()
        if chosen.command == "prepare":
            from m1train.commands.prepare import prepare_data

            return prepare_data(chosen.data_root, chosen.source, chosen.name, chosen.needs)
        if chosen.command == "run":
            from m1train.commands.run import run_directory

            return run_directory(chosen.directory, chosen.attempt)
        if chosen.command == "use":
            from m1train.commands.use import use_model

            asked = (chosen.directory, chosen.step, chosen.use, chosen.options, chosen.input)
            return use_model(*asked, chosen.data_root)
        if chosen.command == "plan":
            from m1train.commands.plan import plan_settings
            from m1train.task.planning import Counts

            counts = Counts(chosen.samples, chosen.tested)
            given = chosen.recipe, chosen.settings, chosen.profile
            return plan_settings(*given, counts, chosen.choose, chosen.beside)
        from m1train.commands.alone import train_alone

        settings = dict(pair.partition("=")[::2] for pair in chosen.set)
        if chosen.epochs is not None:
            settings["epochs"] = chosen.epochs
        return train_alone(chosen.command, chosen.data, settings, chosen.out, chosen.threads, chosen.dtype)
    except M1Error as error:
        sys.stderr.write(f"m1train: {error}\n")
        return error.exit_code
    except ImportError as error:
        missing = M1Error(Reason.TORCH_MISSING, f"a library is missing ({error})", "pip install 'm1d[daemon]'")
        sys.stderr.write(f"m1train: {missing}\n")
        return ExitCode.ERROR


if __name__ == "__main__":
    sys.exit(main())
