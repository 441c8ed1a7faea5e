"""The walls of the house: who may import whom, who may touch a random generator, one version."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "m1": "shared/m1",
    "m1d": "server/m1d",
    "m1train": "server/m1train",
    "m1ctl": "client/m1ctl",
    "m1job": "client/m1job",
    "m1service": "launchd/m1service",
}
# What each package may not import: the other rooms, but those that the design lets it into, and heavy libraries.
TRAINING = {"torch", "torchvision", "sklearn", "safetensors", "numpy", "PIL"}
SERVING = {"psutil", "grpc_health", "grpc_reflection", "sqlite3"}
FORBIDDEN = {
    "m1": {"m1d", "m1train", "m1ctl", "m1service", *TRAINING, *SERVING},
    "m1d": {"m1train", "m1ctl", "m1service", *TRAINING},
    "m1train": {"m1d", "m1ctl", "m1service", "grpc", *SERVING} - {"psutil"},
    "m1ctl": {"m1d", "m1train", *TRAINING, *SERVING},
    "m1job": {"m1", "m1d", "m1train", "m1ctl", "m1service", "grpc", "google", *TRAINING, *SERVING},
    "m1service": {"m1d", "m1train", "m1ctl", "grpc", *TRAINING, *SERVING},
}
GENERATED = ROOT / "shared" / "m1" / "v1"
THE_FILE_OF_RANDOMNESS = ROOT / "server" / "m1train" / "randomness.py"
# Does as plain scripts do, to be timed; what it trains is thrown away.
THE_PLAIN_SCRIPT = ROOT / "server" / "m1train" / "measurements" / "plain.py"


def sources(package: str) -> list[Path]:
    files = [path for path in sorted((ROOT / FOLDERS[package]).rglob("*.py")) if GENERATED not in path.parents]
    assert files
    return files


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported, by a statement or by a name in a call, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, node.lineno


def dotted(node: ast.AST) -> str:
    """ "np.random.rand" of an expression; what is not a name is a dot: ".rand"."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


@pytest.mark.parametrize("package", list(FOLDERS))
def test_nobody_imports_what_is_behind_a_wall(package: str) -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources(package)
        for module, line in imports(ast.parse(path.read_text()))
        if module.partition(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


# What a recipe of images is about, and no client is. One file of it knows the kinds of columns, one the kinds of
# results; a help text or a docstring may name an example.
OF_ONE_TASK = re.compile(r"\b(?:accuracy|images?|labels?|classes)\b", re.IGNORECASE)
KNOWS_KINDS = [ROOT / "client" / "m1ctl" / "views" / name for name in ("columns.py", "results.py")]


def test_the_client_knows_no_task() -> None:
    wrong = [
        f"{where(path, node.lineno)} says {found[0]!r}"
        for path in sources("m1ctl")
        if path not in KNOWS_KINDS
        for node, text in words_of_code(ast.parse(path.read_text()))
        if (found := OF_ONE_TASK.search(text))
    ]
    assert wrong == []


@pytest.mark.parametrize("code", ["x = 'val/accuracy'", "y = job.labels", "class_count, classes = 1, 2"])
def test_a_word_of_one_task_would_be_seen(code: str) -> None:
    assert any(OF_ONE_TASK.search(text) for _, text in words_of_code(ast.parse(code)))


def words_of_code(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Every name and every text of a program, but those of which a person reads: docstrings, and a `help`."""
    read = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    read |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "help"}
    for node in ast.walk(tree):
        if id(node) in read:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, node.value
        elif isinstance(node, ast.Name):
            yield node, node.id.replace("_", " ")
        elif isinstance(node, ast.Attribute):
            yield node, node.attr.replace("_", " ")


# What the engine must not know: what a classifier of images is about. Whoever trains something else reads it, too.
OF_A_CLASSIFIER = re.compile(
    r"\b(?:accuracy|argmax|classes|confusion|images?|labels?|32 ?[x\u00d7] ?32)\b", re.IGNORECASE
)
# The classifier's own rooms, and what 0.1.0 called the things in them.
ITS_ROOMS = ("task/classifier/", "recipes/", "measurements/", "data/", "augment.py", "config.py", "recipe.py")
# One file makes up columns of each kind, one has the kinds of results; the contract calls these by such words.
KNOWS_CONTRACT = ("engine/examples.py", "job/results.py")


def says(text: str) -> Iterator[tuple[str, int]]:
    """Every word of a classifier in a file: in code, parts of names too, in comments and in docstrings."""
    for number, line in enumerate(text.splitlines(), 1):
        yield from ((word, number) for word in OF_A_CLASSIFIER.findall(line.replace("_", " ")))


def test_the_engine_knows_no_classifier() -> None:
    root = ROOT / FOLDERS["m1train"]
    wrong = [
        f"{where(path, line)} says {word!r}"
        for path in sources("m1train")
        if not path.relative_to(root).as_posix().startswith((*ITS_ROOMS, *KNOWS_CONTRACT))
        for word, line in says(path.read_text())
    ]
    assert wrong == []


@pytest.mark.parametrize("path", KNOWS_CONTRACT)
def test_who_may_know_the_words_of_the_contract_still_does(path: str) -> None:
    assert list(says((ROOT / FOLDERS["m1train"] / path).read_text())), "take it out of the list"


@pytest.mark.parametrize(
    "text", ["n_classes = 2", "# of an image", "x.argmax(1)", '"""[B, 32, 32, 3]: 32 x 32."""', 'values["accuracy"]']
)
def test_a_word_of_a_classifier_would_be_seen(text: str) -> None:
    assert list(says(text))


@pytest.mark.parametrize("text", ["np.uint32", "x << 32", "class_name", "class Mine:", "pictures of 64"])
def test_what_every_task_has_is_not_seen(text: str) -> None:
    assert not list(says(text))


# A folder is a floor. What stands at a package's own top (its face, its landmarks) is a floor of one file each.
FLOORS = ("m1train", "m1d", "m1ctl")
# Today's ways up, without which no circle is left. Only ever fewer.
WAYS_UP = {
    "m1train": {("task", "engine"), ("data/sources", "data")},
    "m1d": {("store", "events")},
    "m1ctl": set[tuple[str, str]](),
}
MOST_FILES = 12
# Folders with more: how many they have today. Only ever fewer.
CROWDED = {"client/m1ctl/views": 13}


def floors(package: str) -> dict[str, str]:
    """The floor of each module of a package."""
    root, found = ROOT / FOLDERS[package], dict[str, str]()
    for path in sources(package):
        within = path.relative_to(root)
        name = ".".join((package, *within.with_suffix("").parts)).removesuffix(".__init__")
        folder = within.parent.as_posix()
        found[name] = folder if folder != "." else within.name
    return found


def imported_modules(path: Path, known: Collection[str]) -> Iterator[tuple[str, int]]:
    """Every module of the package itself that a file imports, with the line; what is for types only is left out."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and dotted(node.test).rpartition(".")[2] == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from ((name, node.lineno) for name in names & set(known) or {node.module} & set(known))


def ways_down(package: str) -> dict[str, dict[str, str]]:
    """From each floor to each other one that it imports, with a place where it does."""
    of, ways = floors(package), dict[str, dict[str, str]]()
    for path, floor in zip(sources(package), of.values(), strict=True):
        for module, line in imported_modules(path, of):
            if of[module] != floor:
                ways.setdefault(floor, {}).setdefault(of[module], where(path, line))
    return ways


def below(floor: str, ways: dict[str, dict[str, str]]) -> set[str]:
    """All floors that one comes to from a floor."""
    found, ahead = set[str](), [floor]
    while ahead:
        new = set(ways.get(ahead.pop(), {})) - found
        found |= new
        ahead += new
    return found


def circles(ways: dict[str, dict[str, str]]) -> dict[tuple[str, str], str]:
    """Every way from one floor to another from which one comes back, with a place of it."""
    return {
        (floor, other): place
        for floor, others in ways.items()
        for other, place in others.items()
        if floor in below(other, ways)
    }


@pytest.mark.parametrize("package", FLOORS)
def test_floors_import_downwards_only(package: str) -> None:
    ways = ways_down(package)
    gone = WAYS_UP[package] - set(circles(ways))
    assert not gone, "there is no such way up any more: take it out of the list"
    for floor, other in WAYS_UP[package]:
        del ways[floor][other]
    assert circles(ways) == {}


def test_a_circle_would_be_seen() -> None:
    ways = {"a": {"b": "a.py:1"}, "b": {"c": "b.py:2"}, "c": {"a": "c.py:3"}, "d": {"a": "d.py:4"}}
    assert set(circles(ways)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_folder_is_seen_at_a_glance() -> None:
    files = Counter(path.parent for package in FLOORS for path in sources(package))
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in files.items() if n > MOST_FILES}
    assert crowded == CROWDED


# Imports every module of a package, then says which of the forbidden ones came with it from anywhere.
LOAD_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def test_a_program_of_any_python_since_3_8_can_take_part() -> None:
    for path in sources("m1job"):
        ast.parse(path.read_text(), feature_version=(3, 8))
        modules = {module.partition(".")[0] for module, _ in imports(ast.parse(path.read_text()))}
        assert modules - {"m1job"} <= sys.stdlib_module_names


@pytest.mark.parametrize("package", ["m1", "m1d", "m1ctl", "m1job", "m1service"])
def test_nothing_heavy_comes_in_through_a_side_door(package: str) -> None:
    # grpc itself tries to import these two, whoever imports grpc.
    assert run("-c", LOAD_ALL, package, *FORBIDDEN[package] - {"grpc_health", "grpc_reflection"}) == ""


def test_the_command_line_loads_what_is_slow_inside_the_command_that_needs_it() -> None:
    loaded = run("-c", "import m1ctl.__main__, sys; print(*{'grpc', 'rich.console', 'textual'} & set(sys.modules))")
    assert loaded == ""


def test_describing_a_recipe_needs_no_torch() -> None:
    assert run("-c", "import m1train.__main__, sys; print(*{'torch', 'grpc'} & set(sys.modules))") == ""


def test_a_version_is_one_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert importlib.metadata.version("m1d") == declared
    assert run("-m", "m1d", "--version") == declared


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *arguments], capture_output=True, text=True, check=False, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Draws from torch's global generator unless it is given one.
DRAWS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli"),
    *("multinomial", "poisson"),
}
DRAWS_IN_PLACE = {
    *("random_", "uniform_", "normal_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_"),
    *("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_"),
}
GLOBAL_STATE = {
    *("manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "fork_rng", "default_generator"),
    *("manual_seed_all", "seed_all"),
}
# Draw from the global generator, and cannot be given one.
LAYERS = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu"),
    *("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "RReLU"),
    *("gumbel_softmax", "fractional_max_pool2d", "RandomSampler"),
}


def draws(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every use of a generator that is not the caller's own, with its line."""
    for module, line in imports(tree):
        if module == "random" or module.startswith(("random.", "numpy.random")):
            yield f"import {module}", line
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            first, _, rest = name.partition(".")
            if (
                (first in {"np", "numpy"} and rest.startswith("random"))
                or (first == "torch" and node.attr in GLOBAL_STATE)
                or (first in {"torch", "nn", "F", "functional"} and node.attr in LAYERS)
            ):
                yield name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {"torch", "numpy"}:
            known = GLOBAL_STATE | LAYERS | DRAWS | {"random"}
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = any(keyword.arg == "generator" for keyword in node.keywords)
            of_torch = dotted(node.func).startswith("torch.") and node.func.attr in DRAWS
            if not given and (of_torch or node.func.attr in DRAWS_IN_PLACE):
                yield f"{dotted(node.func)}()", node.lineno


@pytest.mark.parametrize("package", list(FOLDERS))
def test_only_one_file_touches_randomness(package: str) -> None:
    wrong = [
        f"{where(path, line)} uses {name}"
        for path in sources(package)
        if path not in (THE_FILE_OF_RANDOMNESS, THE_PLAIN_SCRIPT)
        for name, line in draws(ast.parse(path.read_text()))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "import random",
        "from random import shuffle",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy import random",
        "torch.manual_seed(1)",
        "torch.cuda.manual_seed_all(1)",
        "torch.randperm(3)",
        "x.normal_()",
        "nn.init.kaiming_uniform_(w)",
        "nn.Dropout(0.5)",
        "from torch.nn.functional import dropout",
        "F.dropout2d(x, 0.1)",
    ],
)
def test_a_global_generator_would_be_seen(code: str) -> None:
    assert list(draws(ast.parse(code)))


@pytest.mark.parametrize("code", ["torch.randperm(3, generator=g)", "randomness.permutation(1, 2)", "x.fill_(1)"])
def test_what_is_drawn_by_our_own_rule_is_not_seen(code: str) -> None:
    assert not list(draws(ast.parse(code)))
