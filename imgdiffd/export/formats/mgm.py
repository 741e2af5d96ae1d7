"""MGM (Mini-Gemini): LLaVA's records, under the names that its scripts have."""

from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.formats.llava import record

FORMAT = list_format("MGM: mgm.json", record, "mgm.json")
