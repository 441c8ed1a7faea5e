"""DatasetService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from m1.datasets import BUILT_IN, CachedDataset, cached_datasets
from m1.paths import Home
from m1.v1 import dataset_pb2, dataset_pb2_grpc

from m1d.catalogue.datasets import ReadProgress, delete, prepare
from m1d.events.translate import timestamp
from m1d.store import Store


class DatasetService(dataset_pb2_grpc.DatasetServiceServicer):
    """See proto/m1/v1/dataset.proto."""

    def __init__(self, home: Home, store: Store) -> None:
        self._home = home
        self._store = store

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_pb2.ListDatasetsResponse:
        cached = {dataset.name: _dataset(dataset) for dataset in cached_datasets(self._home.data)}
        for name, source in BUILT_IN.items():
            cached.setdefault(name, dataset_pb2.Dataset(name=name, source=source, cached=False))
        return dataset_pb2.ListDatasetsResponse(datasets=[cached[name] for name in sorted(cached)])

    async def PrepareDataset(
        self, request: dataset_pb2.PrepareDatasetRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.PrepareDatasetResponse]:
        async for said in prepare(self._home, request.source, request.name):
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
        rows={"train": dataset.train_images, "test": dataset.test_images},
        columns=[
            dataset_pb2.Column(name="image", kind="image", shape=(32, 32, 3), options={"size": "32", "fit": "squeeze"}),
            dataset_pb2.Column(name="label", kind="label", classes=dataset.classes, class_count=len(dataset.classes)),
        ],
        size_bytes=dataset.size_bytes,
        create_time=timestamp(dataset.create_time),
    )
