from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Status",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
            options={
                "verbose_name": "status",
                "verbose_name_plural": "Status",
                "permissions": (
                    ("view_status", "Can view the status of DynamoDB"),
                    ("manage_capacity", "Can reset circuit breakers and change capacity"),
                    ("manage_data", "Can delete cache entries, reset limits and release jobs"),
                ),
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": (),
            },
        ),
    )
