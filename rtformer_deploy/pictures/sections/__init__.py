"""The sections of a page of reports, one module a kind of document: what is read of it, and how it is shown."""
