"""What stage 90 measures: each module has one `measure` of ours beside a plain baseline; `results` keeps the rows."""
