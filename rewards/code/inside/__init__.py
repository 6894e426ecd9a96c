"""Scripts that are sent into the sandbox; `wire` is used outside as well."""
