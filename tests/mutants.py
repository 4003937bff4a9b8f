"""Faults of one line each, and the tests that must catch them: ``make mutants``.

A test proves something only if it fails once the mathematics is wrong. For each fault the tree is
copied, one text is replaced by another, and the named tests run on that copy; the fault is caught
if one of them fails. On the sound tree all of them must pass. A fault is found by its text, which
must occur once in the package, a test by its name, so that both survive a move to another file; a
text that occurs no more, or a name, makes the list stale, and that is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ("sciml", "solvers", "operators", "datasets")
FAILED, TIME_UP = 1, 600  # pytest's exit code where tests failed; seconds that one fault may take


@dataclass(frozen=True)
class Fault:
    """``sound`` and what it becomes; ``tests``: pytest's ``-k``, test functions by whole name."""

    name: str
    sound: str
    broken: str
    tests: str


FAULTS = (
    # What is stated, and what is judged
    Fault(
        "a mean over time is what trapezoids make of it",
        "    return whole - (h**3 * both).sum(-1) / 6\n",
        "    return whole\n",
        "test_a_mean_over_time_is_exact_for_cubics_and_its_error_falls_with_the_fourth_power",
    ),
    Fault(
        "beside a wall the last cells count in full",
        "            factor = factor * share\n",
        "            factor = factor * torch.ones_like(share)\n",
        "test_a_flow_tends_to_what_its_walls_give",
    ),
    Fault(
        "an exact solution passes whatever is left",
        "if gap.share >= _REFUSED + gap.allowed:",
        "if gap.share >= 10 + gap.allowed:",
        "test_what_solves_another_problem_is_refused",
    ),
    Fault(
        "a trained function near an eigenvalue is converged",
        "if not share <= max(_AMPLIFIED * rtol, _SURE):",
        "if not share <= 1e9:",
        "test_a_small_residual_near_an_eigenvalue_is_no_small_error",
    ),
    Fault(
        "conjugate gradients of a Hermitian matrix step by what is imaginary",
        "    return dot(p, q, len(A.shape)).real\n",
        "    return dot(p, q, len(A.shape)).abs() + dot(p, q.conj(), len(A.shape)).imag\n",
        "test_cg_takes_the_steps_of_scipy",
    ),
    Fault(
        "a kernel is taken out by its rows unconjugated",
        "share = (flat.to(rows.dtype) @ rows.mH) @ rows",
        "share = (flat.to(rows.dtype) @ rows.mT) @ rows",
        "test_hermitian_matrices_have_complex_kernels",
    ),
    # Eigenvalues
    Fault(
        "Lehmann's bound lies on the other side",
        "T = torch.diag(theta) - room[:, None] * found.gram",
        "T = torch.diag(theta) + room[:, None] * found.gram",
        "test_temple_is_lehmann_of_one_vector",
    ),
    Fault(
        "the eigenvalues above are counted",
        "return Count(int((pivots < 0).sum()), error)",
        "return Count(int((pivots > 0).sum()), error)",
        "test_inertia_is_what_lapack_counts",
    ),
    Fault(
        "an eigenvalue that was missed stays so",
        "missed = 0 if below is None else below - j - len(self.kernel)",
        "missed = 0",
        "test_a_missed_eigenvalue_is_found_by_the_count",
    ),
    Fault(
        "a mesh's mass is that of its diagonal",
        "return 0.999 * least",
        "return 1.0",
        "test_mass_is_bounded_by_its_diagonal",
    ),
    # Kernels
    Fault(
        "ring closes one place late",
        "return i % n if periodic else -1",
        "return (i + 1) % n if periodic else -1",
        "test_tiny_grids_equal_the_reference",
    ),
    Fault(
        "<u, A u> becomes <A u, A u>",
        "total += t[s, z, y, j] * u[s, z, y, j]",
        "total += t[s, z, y, j] * t[s, z, y, j]",
        "test_apply_and_sweep_equal_the_reference",
    ),
    Fault(
        "relaxed row ends with the wrong neighbour",
        "t[j] - $d * (fl * $left * v[left] + fr * $e * v[right])",
        "t[j] - $d * (fl * $left * v[left] + fl * $e * v[right])",
        "test_tiny_grids_equal_the_reference",
    ),
    Fault(
        "restriction forgets the ring's last column",
        "        even[m] = r[0]",
        "        even[m] = 0",
        "test_transfers_equal_the_reference_and_the_galerkin_identity",
    ),
    Fault(
        "Galerkin product wraps to the wrong end",
        "t[m - 1] += left[m - 1] * c[m - 1] * right[0]",
        "t[m - 1] += left[m - 1] * c[m - 1] * right[m - 1]",
        "test_transfers_equal_the_reference_and_the_galerkin_identity",
    ),
    Fault(
        "interpolation weights with the wrong sign",
        "total[j] -= c[j] * known[j]",
        "total[j] += c[j] * known[j]",
        "test_transfers_equal_the_reference_and_the_galerkin_identity",
    ),
    Fault(
        "CG's step leaves the residual behind",
        "rs[j] -= factor * qs[j]",
        "rs[j] -= 2 * factor * qs[j]",
        "test_vector_kernels_equal_the_reference",
    ),
    Fault(
        "transpose reads its entries in the wrong point",
        "planes.append(shifted(self.entry(mirror), offset, self.periodic))",
        "planes.append(shifted(self.entry(mirror), mirror, self.periodic))",
        "test_apply_and_adjoint_agree_with_scipy",
    ),
    # Multigrid
    Fault(
        "pre-smoother is not the adjoint of the post-smoother",
        "self._smooth(depth, x, b, reverse=True, from_zero=from_zero)",
        "self._smooth(depth, x, b, reverse=False, from_zero=from_zero)",
        "test_the_cycle_is_symmetric_positive_definite",
    ),
    Fault(
        "Chebyshev's three terms lose a factor of two",
        "following = 1 / (2 * sigma - rho)",
        "following = 1 / (sigma - rho)",
        "test_the_torch_kernels_solve_alike or test_the_cycle_is_symmetric_positive_definite",
    ),
    Fault(
        "weak axes are coarsened too",
        "2 if ok and s >= WEAK * strongest else 1",
        "2 if ok else 1",
        "test_aligned_anisotropy_needs_semi_coarsening_only",
    ),
    Fault(
        "islands are bound by strong positive links too",
        "if value < 0 and value * value > bound:",
        "if value * value > bound * bound:",
        "test_islands_are_strongly_connected_components",
    ),
    # Certificate
    Fault(
        "certificate forgets its probability",
        "target = np.log(end) - 2 * math.log(math.sqrt(math.pi / 2) * probability)",
        "target = np.log(end)",
        "test_the_stated_probability_of_failure",
    ),
    Fault(
        "Gauss-Radau weights without their node",
        "gap / (floor * gap + fall)",
        "gap / (gap + fall)",
        "test_the_gauss_radau_rule_bounds_what_is_left_of_the_error",
    ),
    Fault(
        "relative error of the wrong solution",
        "gain = _sum(wide * (_long(b) + r), d)",
        "gain = _sum(wide * (_long(b) - r), d)",
        "test_bounds_bracket_the_true_error",
    ),
    Fault(
        "Lanczos matrix without its second coefficient",
        "T[:, k[1:], k[1:]] += falls / a[:, :-1]",
        "T[:, k[1:], k[1:]] += 0 * falls",
        "test_the_smallest_ritz_value_is_that_of_the_krylov_space",
    ),
    # Statuses
    Fault(
        "stagnation is called something else",
        "self.stop(self.count - self.best_at >= self.window, Status.STAGNATED)",
        "self.stop(self.count - self.best_at >= self.window, Status.MAX_ITERATIONS)",
        "test_a_residual_that_stands_still_ends_as_stagnated_after_the_window",
    ),
    Fault(
        "a fall of the residual is no progress",
        "fell = running & (relative < _FALL * self.best)",
        "fell = running & (relative > _FALL * self.best)",
        "test_a_slow_fall_is_no_stagnation",
    ),
    Fault(
        "a claim that the true residual refuses is granted",
        "self.stop(claimed & ~improved, Status.STAGNATED)",
        "self.stop(claimed & ~improved, Status.CONVERGED)",
        "test_a_claim_that_the_true_residual_denies_ends_at_the_first_restart",
    ),
    Fault(
        "time's largest error becomes the smallest",
        "accurate = (self.worst.amax(0) <= 1.01 * rtol)",
        "accurate = (self.worst.amin(0) <= 1.01 * rtol)",
        "test_a_fixed_step_that_is_too_coarse_says_so",
    ),
    # Boundary terms
    Fault(
        "boundary face at a whole cell's distance",
        "link = through = 2.0 * own / lay.axes[axis].spacing",
        "link = through = own / lay.axes[axis].spacing",
        "test_second_order_for_every_boundary",
    ),
    Fault(
        "Dirichlet value with the wrong sign",
        "terms.right.append((axis, end, -entry * data.value[axis, end]))",
        "terms.right.append((axis, end, entry * data.value[axis, end]))",
        "test_second_order_for_every_boundary",
    ),
    Fault(
        "Robin condition without its own resistance",
        "share = through / (alpha + link) * area",
        "share = through / link * area",
        "test_second_order_for_every_boundary",
    ),
    # Coefficients
    Fault(
        "level set of > is that of <",
        'return Call("-", node.arguments[::-1])',
        'return Call("-", node.arguments)',
        "test_level_set_is_negative_inside",
    ),
    Fault(
        "remainder takes the sign of the dividend",
        '"mod": torch.remainder',
        '"mod": torch.fmod',
        "test_every_function_equals_numpy or test_random_trees_equal_numpy",
    ),
    Fault(
        "interpolation one interval short",
        "position = (point - ticks[0]) / (ticks[-1] - ticks[0]) * (len(ticks) - 1)",
        "position = (point - ticks[0]) / (ticks[-1] - ticks[0]) * (len(ticks) - 2)",
        "test_a_field_on_another_grid_is_interpolated_and_noted",
    ),
    # The general form on meshes
    Fault(
        "F by a field's value differentiated the wrong way round",
        "parts.append(_carried(self.cells, trial.values, test.slopes, _vector(column)).mT)",
        "parts.append(_carried(self.cells, trial.values, test.slopes, _vector(column)))",
        "test_the_jacobian_is_that_of_the_residual",
    ),
    Fault(
        "given values that move without their rate",
        "return b if self._moved is None else b - self._moved_by(t)",
        "return b",
        "test_given_values_that_move_keep_the_order_in_time",
    ),
    Fault(
        "a flow that carries itself backwards",
        'source = source - state[u] * state[f"{own}{axis}"]',
        'source = source + state[u] * state[f"{own}{axis}"]',
        "test_kovasznay_by_taylor_and_hood",
    ),
    # Time, data, networks
    Fault(
        "stage of a second-order system with the wrong power of its step",
        "return r if inertia is None else r + times(inertia, base[1]) / tau",
        "return r if inertia is None else r + times(inertia, base[1]) * tau",
        "test_order_of_a_second_order_system",
    ),
    Fault(
        "hash of the first megabyte only",
        "while part := file.read(1 << 20):\n            value.update(part)",
        "if part := file.read(1 << 20):\n            value.update(part)",
        "test_a_hash_is_that_of_the_whole_file",
    ),
    Fault(
        "cells are kept beside their middle",
        'first = [0 if on.centring == "node" else s // 2 for s in strides]',
        'first = [0 if on.centring == "node" else s // 2 - 1 for s in strides]',
        "test_resolutions_of_cells_are_their_middle_ones",
    ),
    Fault(
        "U-Net normalises every channel by itself",
        "groups = math.gcd(8, outputs)",
        "groups = outputs",
        "test_each_group_of_channels_is_normalised_by_itself",
    ),
    # What touches, swings and buckles
    Fault(
        "what touches is pulled, not pushed",
        "    ahead = u.detach() - F.detach() / held.weights\n",
        "    ahead = u.detach() + F.detach() / held.weights\n",
        "test_a_membrane_between_two_obstacles_meets_the_conditions_of_complementarity",
    ),
    Fault(
        "gamma of Newmark's method dissipates",
        "        self.gamma, self.beta = 0.5 - shift, (1 - shift) ** 2 / 4\n",
        "        self.gamma, self.beta = 0.51 - shift, (1 - shift) ** 2 / 4\n",
        "test_the_energy_of_an_elastic_body_is_kept_to_rounding_or_dissipated",
    ),
    Fault(
        "stresses stiffen twice",
        "    local = stiffness(parts.cells, sigma)\n",
        "    local = 2 * stiffness(parts.cells, sigma)\n",
        "test_a_column_buckles_under_eulers_load",
    ),
    Fault(
        "every absorbing side of a mesh lets all out",
        "        alpha = -1j * k * K.sqrt() * beta\n",
        "        alpha = -1j * k * K.sqrt()\n",
        "test_a_wave_leaves_through_an_absorbing_side_and_an_admittance_sends_its_share_back",
    ),
    Fault(
        "a metal flows by less than it does",
        "        flow = (1.5 * step / q)[..., None] * xi\n",
        "        flow = (1.4 * step / q)[..., None] * xi\n",
        "test_a_bar_is_drawn_and_pressed_along_the_exact_curve",
    ),
    Fault(
        "the hoop of a metal does not push along the radius",
        "            source = source - stress[..., _place(2, 2)] / point.part.points[0]\n",
        "            source = source + 0\n",
        "test_below_its_limit_a_metal_is_elastic",
    ),
    Fault(
        "the loads within a step are not looked at",
        "            worst, size = torch.maximum(worst, gap), torch.maximum(",
        "            worst, size = worst, torch.maximum(",
        "test_a_bar_is_drawn_and_pressed_along_the_exact_curve",
    ),
    Fault(
        "an orthotropic solid is turned the other way",
        "    rows = [c, -s, zero, s, c, zero, zero, zero, zero + 1]\n",
        "    rows = [c, s, zero, -s, c, zero, zero, zero, zero + 1]\n",
        "test_a_linear_displacement_is_exact_with_its_stress",
    ),
    Fault(
        "neighbours cut the facet that they share along different diagonals",
        "            even = corners[own][:, list(facet)].argmin(axis=1) % 2 == 0\n",
        "            even = corners[own][:, list(facet)].argmin(axis=1) % 2 == 1\n",
        "test_several_kinds_of_elements_become_simplices_that_fit",
    ),
)


@dataclass(frozen=True)
class Tree:
    """A copy of the working tree, with a folder for numba's compiled loops beside it."""

    root: Path
    caches: Path

    def sources(self) -> Iterator[Path]:
        """Every file of the package."""
        for folder in PACKAGE:
            yield from sorted(p for p in (self.root / folder).rglob("*.py") if not _linked(p))

    def run(self, files: Iterable[Path], expression: str, cache: str) -> tuple[int, str]:
        """pytest's exit code and output for the tests that ``expression`` selects."""
        threads = dict.fromkeys(
            (f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")), "1"
        )
        # Byte code is told apart by size and second: a fault may change neither.
        settings = {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(self.caches / cache),
        }
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-k", expression, *map(str, files)]
        try:
            done = subprocess.run(
                command,
                cwd=self.root,
                env={**os.environ, **threads, **settings},
                capture_output=True,
                text=True,
                timeout=TIME_UP,
            )
        except subprocess.TimeoutExpired:
            return FAILED, "the tests did not end"
        return done.returncode, done.stdout + done.stderr


def _linked(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


@contextmanager
def copied() -> Iterator[Tree]:
    """What git knows or would add, in a temporary folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Tree(Path(folder) / "tree", Path(folder) / "caches")
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                (tree.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree.root / name, follow_symlinks=False)
        yield tree


def place(tree: Tree, fault: Fault) -> list[Path]:
    """The files that hold the fault's text, one for each time that they do."""
    return [p for p in tree.sources() for _ in range(p.read_text().count(fault.sound))]


def tests_of(tree: Tree, fault: Fault) -> dict[str, list[Path]]:
    """The files in which tests begin with each of the names that the fault gives."""
    texts = {path: path.read_text() for path in sorted((tree.root / "tests").rglob("test_*.py"))}
    return {
        name: [path for path, text in texts.items() if f"def {name}" in text]
        for name in re.findall(r"\btest_\w+", fault.tests)
    }


def staleness(tree: Tree, fault: Fault) -> list[str]:
    """What is wrong with an entry of the list, if anything."""
    places = place(tree, fault)
    if len(places) != 1:
        where = ", ".join(str(path.relative_to(tree.root)) for path in places) or "nowhere"
        return [f"stale: '{fault.name}': its text must occur once, and occurs: {where}"]
    missing = [name for name, files in tests_of(tree, fault).items() if not files]
    return [f"stale: '{fault.name}': there is no test {', '.join(missing)}"] if missing else []


def sound(tree: Tree, faults: Sequence[Fault]) -> bool:
    """Whether all the tests pass where there is no fault."""
    begun = time.perf_counter()
    files = sorted({p for f in faults for found in tests_of(tree, f).values() for p in found})
    print(f"no fault: {len(files)} files of tests", end=" ", flush=True)
    code, output = tree.run(files, " or ".join(f"({f.tests})" for f in faults), "shared")
    print(f"{'FAIL' if code else 'pass'}, {time.perf_counter() - begun:.0f} s", flush=True)
    if code:
        print(output)
    return not code


def told(tree: Tree, fault: Fault, number: int) -> bool:
    """Whether a test fails where the fault is in, and a line that says so."""
    begun = time.perf_counter()
    print(f"{number:>2} {fault.name}:", end=" ", flush=True)
    path = place(tree, fault)[0]
    text = path.read_text()
    # numba's cache looks at the file of a loop, not at what the loop calls.
    cache = f"fault{number}" if "numba" in text else "shared"
    path.write_text(text.replace(fault.sound, fault.broken))
    files = {p for found in tests_of(tree, fault).values() for p in found}
    code, output = tree.run(sorted(files), fault.tests, cache)
    path.write_text(text)
    verdict = {FAILED: "caught", 0: "SURVIVED"}.get(code, f"NOT RUN\n{output}")
    print(f"{verdict}, {time.perf_counter() - begun:.0f} s", flush=True)
    return code == FAILED


def main() -> int:
    """Run all faults, or one; 1 where one survives, 2 where the list is stale."""
    parser = argparse.ArgumentParser(description="Faults that the tests must catch.")
    parser.add_argument("--only", metavar="NAME", help="faults whose name contains this")
    only = parser.parse_args().only
    chosen = [fault for fault in FAULTS if only is None or only in fault.name]
    if not chosen:
        print(f"no fault is called so; the names: {', '.join(fault.name for fault in FAULTS)}")
        return 2
    start = time.perf_counter()
    with copied() as tree:
        stale = [message for fault in chosen for message in staleness(tree, fault)]
        print("\n".join(stale), end="\n" if stale else "", flush=True)
        chosen = [fault for fault in chosen if not staleness(tree, fault)]
        if not sound(tree, chosen):
            return 2
        survivors = [
            fault for number, fault in enumerate(chosen, 1) if not told(tree, fault, number)
        ]
    seconds = time.perf_counter() - start
    print(f"{len(chosen) - len(survivors)} of {len(chosen) + len(stale)} caught, {seconds:.0f} s")
    return 2 if stale else 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
