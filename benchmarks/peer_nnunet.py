"""Run by the Python of an environment that has nnU-Net; knows nothing of medseg. Prints one line of JSON.

    PEER_PYTHON benchmarks/peer_nnunet.py versions
    PEER_PYTHON benchmarks/peer_nnunet.py data MSD_FOLDER       the data set in nnU-Net's layout
    PEER_PYTHON benchmarks/peer_nnunet.py iterate COUNT         seconds of so many training iterations
    PEER_PYTHON benchmarks/peer_nnunet.py dump CASE,CASE OUT    preprocessed cases as .npy

Folders are taken from nnU-Net's own variables (nnUNet_raw, nnUNet_preprocessed, nnUNet_results).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATASET = "Dataset004_Hippocampus"


def versions() -> dict[str, Any]:
    """What is measured."""
    return {name: version(name) for name in ("nnunetv2", "torch", "batchgeneratorsv2")}


def data(folder: str) -> dict[str, Any]:
    """Copy an MSD data set into nnU-Net's layout."""
    source, out = Path(folder), _home("raw")
    told = json.loads((source / "dataset.json").read_text())
    for name in ("imagesTr", "labelsTr"):
        (out / name).mkdir(parents=True, exist_ok=True)
    pairs = [
        f for f in sorted((source / "labelsTr").glob("*.nii.gz")) if (source / "imagesTr" / f.name).is_file()
    ]
    for file in pairs:
        case = file.name.removesuffix(".nii.gz")
        shutil.copy(source / "imagesTr" / file.name, out / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(file, out / "labelsTr" / file.name)
    labels = {name: int(value) for value, name in told["labels"].items()}
    description = {
        "channel_names": told["modality"], "labels": labels,
        "numTraining": len(pairs), "file_ending": ".nii.gz",
    }  # fmt: skip
    (out / "dataset.json").write_text(json.dumps(description))
    return {"cases": len(pairs)}


def iterate(count: str) -> dict[str, Any]:
    """Seconds of each training iteration: the next batch from the loader, then nnU-Net's own step."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args("4", "3d_fullres", "all", device=torch.device("cpu"))
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.network.train()
    seconds, processor = [], []
    for _ in range(int(count)):
        start, work = time.perf_counter(), time.process_time()
        trainer.train_step(next(loader))
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - work)
    given = trainer.configuration_manager
    return {
        "seconds": seconds, "processor": processor, "patch": given.patch_size, "batch": given.batch_size,
        "network": given.network_arch_init_kwargs, "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }  # fmt: skip


def dump(cases: str, out: str) -> dict[str, Any]:
    """Preprocessed images and labels ``[C, z, y, x]``."""
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    folder = next(_home("preprocessed").glob("*3d_fullres"))
    found = infer_dataset_class(str(folder))(str(folder))
    for case in cases.split(","):
        image, labels, *_ = found.load_case(case)
        np.save(Path(out) / f"{case}_image.npy", np.asarray(image, np.float32))
        np.save(Path(out) / f"{case}_labels.npy", np.asarray(labels))
    return {"cases": len(cases.split(","))}


def _home(name: str) -> Path:
    return Path(os.environ["nnUNet_" + name]) / DATASET


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(0)  # one of the benchmarks calls it
    done = {f.__name__: f for f in (versions, data, iterate, dump)}[sys.argv[1]](*sys.argv[2:])
    sys.stdout.flush()
    print("RESULT " + json.dumps(done, default=str), flush=True)
    os._exit(0)  # the loader's worker processes do not end by themselves
