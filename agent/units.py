"""Units as OPC UA names them: the common codes of UNECE Recommendation 20.

An OPC UA EUInformation has the same unit as a number: the code's characters, as the bytes of an integer (OPC 10000-8,
5.6.3.3). Only the units that plants use every day are here; a unit that is not has no code, which is no error.
"""

from __future__ import annotations

_CODES = {
    "%": "P1", "ppm": "59", "pcs": "H87", "1": "C62", "dB": "2N", "pH": "Q30",
    "°C": "CEL", "K": "KEL", "°F": "FAH",
    "Pa": "PAL", "hPa": "A97", "kPa": "KPA", "MPa": "MPA", "bar": "BAR", "mbar": "MBR",
    "V": "VLT", "mV": "2Z", "kV": "KVT", "A": "AMP", "mA": "4K", "kA": "B22", "Ω": "OHM",
    "W": "WTT", "kW": "KWT", "MW": "MAW", "VA": "D46", "kVA": "KVA", "var": "D44", "kvar": "KVR",
    "Wh": "WHR", "kWh": "KWH", "MWh": "MWH", "J": "JOU", "kJ": "KJO", "MJ": "3B",
    "Hz": "HTZ", "kHz": "KHZ", "MHz": "MHZ", "rpm": "RPM",
    "mm": "MMT", "cm": "CMT", "m": "MTR", "km": "KMT", "µm": "4H", "m²": "MTK", "m³": "MTQ", "l": "LTR", "ml": "MLT",
    "m/s": "MTS", "mm/s": "C16", "m/s²": "MSK", "m³/h": "MQH", "m³/s": "MQS", "l/min": "L2", "l/s": "G51",
    "g": "GRM", "kg": "KGM", "t": "TNE", "kg/h": "E93", "kg/s": "KGS", "kg/m³": "KMQ",
    "N": "NEW", "kN": "B47", "N·m": "NU",
    "s": "SEC", "ms": "C26", "min": "MIN", "h": "HUR", "d": "DAY",
    "°": "DD", "rad": "C81", "lx": "LUX", "mol": "C34",
}  # fmt: skip
_OTHER = {
    "degC": "°C", "℃": "°C", "C": "°C", "degF": "°F", "ohm": "Ω", "Ohm": "Ω", "deg": "°", "sec": "s", "hr": "h",
    "pc": "pcs", "piece": "pcs", "pieces": "pcs", "个": "pcs", "件": "pcs", "L": "l", "L/min": "l/min", "L/s": "l/s",
    "m2": "m²", "m3": "m³", "m^2": "m²", "m^3": "m³", "m3/h": "m³/h", "m^3/h": "m³/h", "m3/s": "m³/s", "m/s2": "m/s²",
    "m/s^2": "m/s²", "Nm": "N·m", "um": "µm", "μm": "µm", "1/min": "rpm", "r/min": "rpm", "min-1": "rpm",
    "kg/m3": "kg/m³",
    "转/分": "rpm", "摄氏度": "°C", "千瓦时": "kWh", "千瓦": "kW", "伏": "V", "安": "A",
}  # fmt: skip
"""Other spellings of the same units."""


def code(unit: str) -> str:
    """The UNECE common code of a unit as people write it; empty where it is not known here."""
    return _CODES.get(_OTHER.get(unit, unit), "")


def unit_id(code: str) -> int:
    """The unitId of EUInformation: `CEL` is 4408652."""
    return int.from_bytes(code.encode("ascii"))
