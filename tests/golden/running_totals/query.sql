SELECT account, balance, payments, largest FROM balances ORDER BY account
