"""The rules for the customers of a shard, as the store says on which program they are."""

from loyalty.program_change import Previous
from loyalty.rules import Moved, Rules
from schemas.program import Program, ProgramError, parse_program
from streams.protocols import FatalError, ShardState, Stop


def rules_of(program: Program, state: ShardState, moved: Moved | None = None) -> Rules:
    """The rules that hold for a shard: with those before, while its customers are moved.

    Raises FatalError where the file of the program before cannot be read.
    """
    if not state.is_moving:
        return Rules(program, state.generation)
    try:
        before = parse_program(state.program_before)
    except ProgramError as error:
        raise FatalError(
            f"the program before, as the store holds it, cannot be read: {error}", Stop.PROGRAM
        ) from error
    return Rules(program, state.generation, Previous(before, state.program_at, state.protect_until), moved)
