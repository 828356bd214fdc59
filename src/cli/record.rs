//! `energylens record -- CMD`: what one command costs, device by device.
