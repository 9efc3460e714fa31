"""The domain: orders, rolling windows, RFM, tiers and contacts, folded event by event.

Pure: what goes in are validated events and instants, what comes out are values. Nothing here does I/O or
reads a clock. Times are epoch milliseconds (UTC), money is whole minor units of the program's currency, all
``int``.

``Fold`` decides, ``Packing`` keeps, ``batch`` computes the same a second time, from scratch, for comparing.
"""

from loyalty.customer import Customer, new_customer
from loyalty.fold import Fold
from loyalty.packing import Packed, PackedStateError, Packing, page_numbers, pages_of
from loyalty.views import Change, CustomerView

__all__ = [
    "Change",
    "Customer",
    "CustomerView",
    "Fold",
    "Packed",
    "PackedStateError",
    "Packing",
    "new_customer",
    "page_numbers",
    "pages_of",
]
