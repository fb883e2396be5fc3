"""`python -m experiments` lists the experiments."""

import ast
from pathlib import Path


def main() -> None:
    print("python -m experiments.NAME trains one of these; --help lists its options:\n")
    for path in sorted(Path(__file__).parent.glob("[!_]*")):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.exists():
            summary = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
            print(f"  {path.stem:18} {summary}")


if __name__ == "__main__":
    main()
