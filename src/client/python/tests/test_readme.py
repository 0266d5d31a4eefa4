from __future__ import annotations

import ast
import re
import unittest
from pathlib import Path

import vertice_client

README = Path(__file__).resolve().parent.parent / "README.md"


class Readme(unittest.TestCase):
    def test_the_examples_are_python_and_import_what_there_is(self) -> None:
        programs = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        self.assertEqual(len(programs), 2)
        for program in programs:
            imports = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)]
            ours = [alias.name for node in imports if node.module == "vertice_client" for alias in node.names]
            self.assertTrue(ours)
            for name in ours:
                self.assertIn(name, vertice_client.__all__)
