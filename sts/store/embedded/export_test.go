package embedded

// Reads returns how many read transactions there have been.
func (d *DB) Reads() int { return d.db.Stats().TxN }

// DropAtOnce is how many entries one transaction drops.
const DropAtOnce = dropAtOnce
