"""DatasetService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from m1.columns import Column
from m1.datasets import BUILT_IN, CachedDataset, cached_datasets
from m1.paths import Home
from m1.v1 import dataset_pb2, dataset_pb2_grpc

from m1d.api.paging import fitting, make_token, read_token
from m1d.catalogue.datasets import ReadProgress, delete, prepare
from m1d.events.translate import timestamp
from m1d.store import Store

# The contract's bound; class_count says how many there are.
_MOST_CLASSES = 1000


class DatasetService(dataset_pb2_grpc.DatasetServiceServicer):
    """See proto/m1/v1/dataset.proto."""

    def __init__(self, home: Home, store: Store, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._store = store

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_pb2.ListDatasetsResponse:
        first = read_token("datasets", request.page_token) or 0
        listed = [_dataset(dataset) for dataset in await asyncio.to_thread(cached_datasets, self._home.data)]
        missing = BUILT_IN.keys() - {dataset.name for dataset in listed}
        listed += [dataset_pb2.Dataset(name=name, source=BUILT_IN[name], cached=False) for name in missing]
        listed.sort(key=lambda dataset: dataset.name)  # of one name, the different ways of reading stay together
        page = fitting(listed[first:], len(listed))
        following = first + len(page)
        token = make_token("datasets", following) if following < len(listed) else ""
        return dataset_pb2.ListDatasetsResponse(datasets=page, next_page_token=token)

    async def PrepareDataset(
        self, request: dataset_pb2.PrepareDatasetRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.PrepareDatasetResponse]:
        settings = dict(request.settings.items())
        async for said in prepare(self._home, self._environment, request.source, request.name, settings):
            if isinstance(said, ReadProgress):
                progress = dataset_pb2.PrepareProgress(phase=said.phase, done=said.done, total=said.total)
                yield dataset_pb2.PrepareDatasetResponse(progress=progress)
            else:
                yield dataset_pb2.PrepareDatasetResponse(dataset=_dataset(said))

    async def DeleteDataset(
        self, request: dataset_pb2.DeleteDatasetRequest, context: Any
    ) -> dataset_pb2.DeleteDatasetResponse:
        freed_bytes = delete(self._home, self._store, request.name)
        return dataset_pb2.DeleteDatasetResponse(freed_bytes=freed_bytes)


def _dataset(dataset: CachedDataset) -> dataset_pb2.Dataset:
    return dataset_pb2.Dataset(
        name=dataset.name,
        source=dataset.source,
        cached=True,
        rows=dataset.rows,
        columns=[_column(column) for column in dataset.columns],
        notes=[*dataset.warnings, *dataset.notes],
        size_bytes=dataset.size_bytes,
        create_time=timestamp(dataset.create_time),
    )


def _column(column: Column) -> dataset_pb2.Column:
    return dataset_pb2.Column(
        name=column.name,
        kind=column.kind,
        shape=column.shape,
        options=column.options,
        classes=column.classes[:_MOST_CLASSES],
        class_count=len(column.classes),
    )
