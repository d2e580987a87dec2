"""Stands in for torch, of which VBench's caller only asks for a device."""


def device(name):
    return name


class cuda:  # noqa: N801 - as torch calls it
    @staticmethod
    def is_available():
        return False
