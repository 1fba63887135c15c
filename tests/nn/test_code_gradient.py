"""The rotation against its matrix, and both gradients against their definitions."""

import pytest
import torch

from stages.nn.code_gradient import replaced, rotated, straight_through


def pairs(count=7, dim=5, seed=0):
    latents, vectors = torch.randn(2, count, dim, 2, generator=torch.Generator().manual_seed(seed))
    return latents.double().requires_grad_(), vectors.double()


def matrix(z, q):
    """|q| / |z| R for one pair, R built from an orthonormal basis of the plane of both."""
    u, v = z / z.norm(), q / q.norm()
    across = v - (u @ v) * u
    w = across / across.norm()
    cos, sin = u @ v, v @ w
    turn = torch.eye(len(z), dtype=z.dtype)
    turn += (cos - 1) * (torch.outer(u, u) + torch.outer(w, w))
    turn += sin * (torch.outer(w, u) - torch.outer(u, w))
    return q.norm() / z.norm() * turn


def jacobian(function, z, q):
    """dq/dz of a single vector."""
    rows = torch.autograd.functional.jacobian(lambda v: function(v[None], q[None])[0], z)
    return rows


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    latents = torch.randn(2, 3, requires_grad=True)
    vectors = torch.randn(2, 3, requires_grad=True)
    passed = straight_through(latents, vectors)
    torch.testing.assert_close(passed, vectors)
    cost = torch.randn(2, 3)
    (passed * cost).sum().backward()
    assert torch.equal(latents.grad, cost)
    assert vectors.grad is None


def test_the_rotation_has_the_value_of_the_entry_to_the_last_bit():
    latents, vectors = pairs()
    assert torch.equal(rotated(latents, vectors), vectors)


def test_its_jacobian_is_the_scaled_rotation_in_the_plane_of_both():
    latents, vectors = pairs()
    for z, q in zip(latents.detach()[..., 0], vectors[..., 0], strict=True):
        torch.testing.assert_close(jacobian(rotated, z, q), matrix(z, q))


def test_the_matrix_is_a_rotation_that_brings_one_to_the_other():
    z, q = (vectors.detach()[0, :, 0] for vectors in pairs())
    turn = jacobian(rotated, z, q) * z.norm() / q.norm()
    torch.testing.assert_close(turn @ turn.T, torch.eye(5).double())
    assert torch.linalg.det(turn).item() == pytest.approx(1)
    torch.testing.assert_close(jacobian(rotated, z, q) @ z, q)


def test_the_angle_between_gradient_and_entry_becomes_that_with_the_vector():
    # What the paper wants of it: the gradient stands to z as it stood to q.
    latents, vectors = pairs()
    cost = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3)).double()
    (rotated(latents, vectors) * cost).sum().backward()
    at_entry = torch.cosine_similarity(cost, vectors, dim=1)
    at_vector = torch.cosine_similarity(latents.grad, latents.detach(), dim=1)
    torch.testing.assert_close(at_vector, at_entry)


def test_vector_and_entry_in_one_place_make_it_straight_through():
    latents, _ = pairs()
    for z in latents.detach()[..., 0]:
        torch.testing.assert_close(jacobian(rotated, z, z), torch.eye(5).double())


def test_grids_are_rotated_cell_by_cell():
    grid = torch.randn(3, 4, 2, 5, requires_grad=True)
    vectors, cost = torch.randn(2, 3, 4, 2, 5)
    (rotated(grid, vectors) * cost).sum().backward()
    cell = grid.detach()[1, :, 1, 3].clone().requires_grad_()
    (rotated(cell[None], vectors[1, :, 1, 3][None]) * cost[1, :, 1, 3]).sum().backward()
    torch.testing.assert_close(grid.grad[1, :, 1, 3], cell.grad)


def test_opposite_directions_are_reflected():
    z = torch.tensor([3.0, 0, 0]).double()
    expected = 2 * torch.diag(torch.tensor([-1.0, 1, 1])).double()
    torch.testing.assert_close(jacobian(rotated, z, -2 * z), expected)


def test_a_vector_without_direction_is_passed_straight_through():
    z, q = torch.zeros(3), torch.randn(3)
    torch.testing.assert_close(jacobian(rotated, z, q), torch.eye(3))
    assert torch.equal(rotated(z[None], q[None]), q[None])


def test_the_option_chooses():
    latents, vectors = pairs()
    for gradient, function in (("straight_through", straight_through), ("rotation", rotated)):
        chosen = jacobian(
            lambda z, q, way=gradient: replaced(z, q, way),
            latents.detach()[0, :, 0],
            vectors[0, :, 0],
        )
        expected = jacobian(function, latents.detach()[0, :, 0], vectors[0, :, 0])
        assert torch.equal(chosen, expected)
