"""The paper's tables, the conflict benchmark, case studies."""
