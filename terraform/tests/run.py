#!/usr/bin/env python3
"""Tests of the Terraform modules, with a real Terraform in process. Usage: run.py --weft PATH [TEST ...]

`local` is applied and destroyed for real. `aws` is validated and planned against a stand-in for its provider.
"""

import argparse
import os
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weft", required=True, type=pathlib.Path, help="the binary")
    parser.add_argument("tests", nargs="*", help="such as test_local or test_local.Local.test_format")
    arguments = parser.parse_args()
    os.environ["WEFT_BIN"] = str(arguments.weft.resolve(strict=True))
    sys.dont_write_bytecode = True
    os.chdir(HERE)
    sys.path.insert(0, str(HERE))
    loader = unittest.defaultTestLoader
    tests = loader.loadTestsFromNames(arguments.tests) if arguments.tests else loader.discover(str(HERE))
    ran = unittest.TextTestRunner(verbosity=2).run(tests)
    failed, skipped = len(ran.failures) + len(ran.errors), len(ran.skipped)
    # As cargo's harness counts.
    print(f"test result: python. {ran.testsRun - failed - skipped} passed; {failed} failed; {skipped} ignored; 0 measured")
    sys.exit(failed > 0 or ran.testsRun == 0)


if __name__ == "__main__":
    main()
