"""What a field may hold, and how it stands in a column: both directions, in one folder.

    str int float bool bytes     as they are; an int has 64 bits, a float is finite
    Decimal                      DECIMAL of the digits that its annotation declares
    datetime                     a timestamp in UTC; with the annotation NaiveDatetime as it is
    date time                    as they are; a time has no offset
    timedelta                    its microseconds
    UUID                         its text, which every reader of Parquet shows
    Enum                         its value, if all values are text or all are integers; or its name
    Literal                      like the type of its values
    tuple[X, ...] list[X]        LIST
    a dataclass                  STRUCT

An event is made `normal` before `evolve` sees it: as the log will give it back. So a state is the
same before and after a restart.

What may not come in: anything of commands, streams or files.
"""
