"""What a device is: the metadata that goes into the catalog with its tags."""

from __future__ import annotations

from pydantic import Field

from agent.table import Table


class Product(Table):
    """What the device is, in the element names of GB/T 38555-2020 clauses 8 and 9. Conformity is not claimed."""

    product_identifier: str | None = Field(None, description="9.1", examples=["88.118.8/press1"])
    product_name: str | None = Field(None, description="9.2", examples=["hydraulic press"])
    product_description: str | None = Field(None, description="9.3")
    product_model: str | None = Field(None, description="9.4", examples=["HP-250"])
    product_brand: str | None = Field(None, description="9.5")
    product_size: str | None = Field(None, description="9.6")
    product_material: str | None = Field(None, description="9.7")
    product_quality_information: str | None = Field(None, description="9.8")
    manufacturer_name: str | None = Field(None, description="8.1", examples=["Example Works"])
    manufacturer_code: str | None = Field(None, description="8.2")
    manufacturer_uniform_resource_identifier: str | None = Field(None, description="8.7")

    def facts(self) -> dict[str, str]:
        """What is filled in."""
        return {name: value for name, value in self.model_dump().items() if value}
