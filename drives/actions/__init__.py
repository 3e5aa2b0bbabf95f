"""The actions of a drive: tables, signals on clocks of their own, derived quantities, units."""
