"""Recipes and datasets: what can be trained, and on what."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from m1.errors import M1Error, Reason
from m1.v1 import dataset_pb2, job_pb2, recipe_pb2

from m1ctl.sdk.client.calls import Calls
from m1ctl.sdk.requests import build_settings, name_or_file

if TYPE_CHECKING:
    from m1.columns import Need
    from m1.settings import Value

OnProgress = Callable[[dataset_pb2.PrepareProgress], None]
FILE_CHECK_S = 60.0
"""How long the daemon may take to check a recipe of the user's own."""


class Data(Calls):
    """RecipeService and DatasetService."""

    def recipes(self) -> list[recipe_pb2.Recipe]:
        """Return all recipes."""
        return list(self._ask(recipe_pb2.ListRecipesResponse).recipes)

    def recipe(self, recipe: str | job_pb2.RecipeFile) -> recipe_pb2.Recipe:
        """Return one recipe with its settings; a file is checked as for a submit."""
        timeout_s = self._check_timeout_s(recipe)
        return self._ask(recipe_pb2.GetRecipeResponse, timeout_s, persistent=True, **name_or_file(recipe)).recipe

    def _check_timeout_s(self, recipe: str | job_pb2.RecipeFile) -> float:
        """Return the deadline of a call that may have to check a file first."""
        return self.connection.timeout_s + (FILE_CHECK_S if isinstance(recipe, job_pb2.RecipeFile) else 0)

    def datasets(self) -> list[dataset_pb2.Dataset]:
        """Return the built-in datasets and those in the cache."""
        found: list[dataset_pb2.Dataset] = []
        token = ""
        while True:
            page = self._ask(dataset_pb2.ListDatasetsResponse, persistent=True, page_token=token)
            found += page.datasets
            token = page.next_page_token
            if not token:
                return found

    def prepare_dataset(
        self,
        source: str,
        name: str = "",
        on_progress: OnProgress | None = None,
        *,
        settings: Mapping[str, Value] | None = None,
    ) -> dataset_pb2.Dataset:
        """Read a dataset into the daemon's cache, at once if it is there.

        Args:
            source: A name or an absolute path on the daemon's machine.
            name: What jobs call it by from now on; empty: the source itself.
            on_progress: Called as it goes on.
            settings: How it is read: the "size" and "fit" of images; empty: 32 x 32, squeezed.
        """
        asked = build_settings(settings) if settings else None
        for response in self._stream(dataset_pb2.PrepareDatasetResponse, source=source, name=name, settings=asked):
            if response.WhichOneof("result") == "dataset":
                return response.dataset
            if on_progress:
                on_progress(response.progress)
        raise M1Error(Reason.INTERNAL, f'the daemon stopped reading "{source}" without an answer')

    def delete_dataset(self, name: str) -> int:
        """Remove a dataset from the daemon's cache, all its versions; the bytes that this freed."""
        return self._ask(dataset_pb2.DeleteDatasetResponse, name=name).freed_bytes

    def _have_read(
        self, recipe: str | job_pb2.RecipeFile, checked: job_pb2.JobSpec, on_progress: OnProgress | None
    ) -> None:
        """Have a job's data read, unless they are in the cache as the recipe needs them.

        What was imported under a name does not change, and a process that looks again takes longer than all else of a
        submit; what is at a path may have changed. A file's recipe is asked for only where data have to be read: with
        other settings than its own defaults, the daemon would check it once more.
        """
        known = {} if os.path.isabs(checked.data) else {dataset.name: dataset for dataset in self.datasets()}
        found = known.get(checked.data)
        is_cached = found is not None and found.cached
        if is_cached and not isinstance(recipe, str):
            return
        declared = self.recipe(recipe)
        needs = needs_of(declared, checked)
        if declared.reads_data or (is_cached and found is not None and has_columns(found, needs)):
            return
        self.prepare_dataset(checked.data, on_progress=on_progress, settings=read_settings(needs))


def needs_of(recipe: recipe_pb2.Recipe, spec: job_pb2.JobSpec) -> list[Need]:
    """Return what the recipe needs of its data, with a job's settings in place of their names."""
    from google.protobuf.json_format import MessageToDict
    from m1.columns import Need, normalised

    settings = {name: _plain(value) for name, value in MessageToDict(spec.settings).items()}
    needs = [Need(need.kind, dict(need.options)) for need in recipe.needs]  # type: ignore[arg-type]  # a newer daemon's kind
    return list(normalised([need.with_settings(settings) for need in needs]))


def has_columns(dataset: dataset_pb2.Dataset, needs: list[Need]) -> bool:
    """Return True if the dataset was read as it is needed."""
    return all(
        any(
            column.kind == need.kind and need.options.items() <= dict(column.options).items()
            for column in dataset.columns
        )
        for need in needs
    )


def read_settings(needs: list[Need]) -> dict[str, Value]:
    """Return the settings of a reading that gives what is needed; none for what is read without being asked."""
    from m1.columns import key_of_needs

    if not needs or not key_of_needs(needs):
        return {}
    return {name: value for need in needs for name, value in need.options.items()}


def _plain(value: Value) -> Value:
    """Return a number as its setting has it: JSON knows no whole ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
