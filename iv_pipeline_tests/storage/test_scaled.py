from pathlib import Path

import numpy as np
import pyarrow as pa
from upath import UPath

from iv_pipeline.scaler import Scaler
from iv_pipeline.storage.scaled import parameters_table, read_scaled, scaled_table
from iv_pipeline.storage.tables import read_table, table_from_arrays, write_table


def test_scalers_alone_read_as_the_vectors_they_stand_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4)).astype(np.float32)
    scalers = {
        name: Scaler(rng.normal(size=4), rng.uniform(0.5, 2, 4)) for name in ("standard", "minmax", "robust")
    }
    paths = pa.array([f"{i}.jpg" for i in range(30)])
    for folder in ("Init", "Scaled"):
        (tmp_path / folder).mkdir()
    write_table(
        table_from_arrays({"image_path": paths, "descriptor": X}, 8), UPath(tmp_path / "Init/d.arrow")
    )
    init = read_table(UPath(tmp_path / "Init/d.arrow"))
    whole = scaled_table(init, "descriptor", scalers)
    write_table(whole, UPath(tmp_path / "Scaled/whole.arrow"))
    light = parameters_table(whole, "../Init/d.arrow", "descriptor", scalers)
    write_table(light, UPath(tmp_path / "Scaled/light.arrow"))

    stored, computed = (read_scaled(UPath(tmp_path / f"Scaled/{name}.arrow")) for name in ("whole", "light"))
    assert stored.schema.names == computed.schema.names == ["image_path", "standard", "minmax", "robust"]
    assert computed.column("image_path").equals(paths)
    for name, scaler in scalers.items():
        expected = (X - scaler.center) / scaler.scale
        np.testing.assert_allclose(stored.vectors(name).to_array(), expected, atol=1e-5)
        np.testing.assert_array_equal(computed.vectors(name).to_array(), stored.vectors(name).to_array())
    sizes = [(tmp_path / f"Scaled/{name}.arrow").stat().st_size for name in ("whole", "light")]
    assert sizes[1] < sizes[0]
