"""One file per section of the report; each builds its section where the artifacts for it are given."""
