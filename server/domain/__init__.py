"""The rules of the house without any I/O: state machines as tables, money as integers, bookings, bills."""
