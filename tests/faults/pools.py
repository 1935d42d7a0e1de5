"""A pool for the harness of kills: nobody is given what another has, also not what one had who was killed."""

from __future__ import annotations

import gomp


@gomp.struct
class Token:
    holder: int  # 0 while it is in the pool
    seal: int


TOKENS = gomp.Pool(Token, name="faults.tokens")


@gomp.compiled
def use(owner: int, rounds: int) -> int:
    """Have three tokens at a time; how often one of them was somebody else's meanwhile."""
    wrong = 0
    for i in range(rounds):
        a, b, c = TOKENS.get(), TOKENS.get(), TOKENS.get()
        wrong += (a.holder != 0) + (b.holder != 0) + (c.holder != 0)
        a.holder = b.holder = c.holder = owner
        a.seal = b.seal = c.seal = i
        for _ in range(10):
            wrong += (a.holder != owner) + (b.holder != owner) + (c.seal != i)
        a.holder = b.holder = c.holder = 0
        TOKENS.put(a)
        TOKENS.put(b)
        if i % 5:
            TOKENS.put(c)
    return wrong


class User:
    """Holds some for long, and uses others often."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.held: list[Token] = []

    def step(self) -> None:
        if use(self.owner, 200):
            raise AssertionError("compiled code was given a token that another has")
        for token in self.held:
            if token.holder != self.owner:
                raise AssertionError(f"a token is {token.holder}'s, and {self.owner} has it")
            token.holder = 0
            TOKENS.put(token)
        self.held = []
        for _ in range(20):
            token = TOKENS.get()
            assert token is not None
            if token.holder != 0:
                raise AssertionError(f"{self.owner} was given a token that {token.holder} has")
            token.holder = self.owner
            self.held.append(token)
        for _ in range(30):
            TOKENS.put(gomp.new(Token))  # more than a ring holds, now and then

    def end(self) -> None:
        for token in self.held:
            token.holder = 0
